"""YAML files from anyone's hands: plain values only, and no more of them than a person writes.

Apart from profiles and settings, which are both such files and must be refused by the same rules.
A small file can cost hours or gigabytes, or run code, by what YAML offers beyond data: tags that
build objects, aliases that multiply a list by itself, numbers in base 60, nesting. None of it is
read here. Imports only yaml and the standard library, see `storage.profile_files`.
"""

import os
import stat
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 50
MAX_NODES = 40_000
"""Values in a file; a profile has some hundred, and up to seventy for each config of its front."""
MAX_NUMBER_LENGTH = 64
"""Characters of a number; reading a longer one can take time that grows with its square."""

_TEXT = "tag:yaml.org,2002:str"
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_SCALARS = (*_NUMBERS, "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null")


class NotPlainYaml(ValueError):
    """A text is no YAML, or more than plain values; the message begins with "must be"."""


def read_bytes(path: Path) -> bytes:
    """Return the content of a regular file of at most 1 MB.

    Raises:
        NotPlainYaml: If it is a pipe, a device or a folder, or larger.
        OSError: If it cannot be read.
    """
    # Opening a pipe would wait for its writer.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise NotPlainYaml("must be a regular file, but got a pipe or a device; copy it to one")
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise NotPlainYaml("must be at most 1 MB, but is larger; name another file")
    return content


def parse(content: bytes) -> Any:
    """Return the value of a YAML text: text, numbers, booleans, None, lists, mappings of text keys.

    Dates stay text. No alias, tag, second document, repeated key or very long number is taken, and
    no more than `MAX_NODES` values, `MAX_DEPTH` deep.

    Raises:
        NotPlainYaml: If it is something else; one line with the line's number and the remedy, and
            nothing of the text but a key, which a message may show.
    """
    try:
        return yaml.load(content.decode(), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        what = error.problem or error.context
        raise NotPlainYaml(f"must be YAML, but got{line}: {what}; correct it") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the last: of "\\UFFFFFFFF"
        words = " ".join(str(error).split())
        raise NotPlainYaml(f"must be a YAML text, but got: {words}; correct it") from error


class _Loader(yaml.SafeLoader):
    """The safe loader, refusing what `parse` says."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self.depth = 0
        self.num_nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse a node before anything is built of it, or read beyond it."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("an alias", event)
        if event.tag is not None:
            raise _refusal(f"the tag {event.tag[:60]!r}", event)
        if self.depth == MAX_DEPTH:
            raise _refusal("too deep nesting", event)
        if self.num_nodes == MAX_NODES:
            raise _refusal(f"more than {MAX_NODES:,} values", event)
        self.depth += 1
        self.num_nodes += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        if isinstance(node, yaml.ScalarNode):
            _require_plain(node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; of two equal keys YAML would silently take the last."""
        seen = set()
        for key, _ in node.value:
            if key.tag != _TEXT:
                raise _refusal("a key that is no text; put it in quotes", key)
            if key.value in seen:
                raise _refusal(f"a second {key.value[:40]!r}", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0] in _SCALARS]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _require_plain(node: yaml.ScalarNode) -> None:
    if node.tag in _NUMBERS and len(node.value) > MAX_NUMBER_LENGTH:
        raise _refusal(f"a number of more than {MAX_NUMBER_LENGTH} characters", node)
    if any("\ud800" <= character <= "\udfff" for character in node.value):
        raise _refusal("half a character, which cannot be written again", node)


def _refusal(what: str, at: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    mark: Any = at.start_mark
    return yaml.MarkedYAMLError(problem=what, problem_mark=mark)
