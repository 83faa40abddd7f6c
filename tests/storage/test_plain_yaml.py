"""Files that were made to hang, to fill the memory, to run code or to be read in two ways."""

import contextlib
import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.plain_yaml import MAX_BYTES, NotPlainYaml, parse, read_bytes

LAUGHS = b"a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n"
BAD = {
    "alias": (LAUGHS, "line 2: an alias"),
    "alias of itself": (b"a: &a [*a]", "line 1: an alias"),
    "merge": (b"a: &a {x: 1}\nb:\n  <<: *a\n", "line 3: an alias"),
    "python tag": (b"a: !!python/object/apply:os.system [id]", "line 1: the tag"),
    "binary": (b"a: !!binary aGk=", "line 1: the tag"),
    "set": (b"a: !!set {x}", "line 1: the tag"),
    "empty number": (b'a: !!int ""', "line 1: the tag"),
    "repeated key": (b"a: 1\nb: 2\na: 3\n", "line 3: a second 'a'"),
    "repeated key within": (b"x: {a: 1, a: 2}", "line 1: a second 'a'"),
    "number as a key": (b"x: {1: a, b: c}", "line 1: a key that is no text"),
    "list as a key": (b"? [a]\n: 1", "line 1: a key that is no text"),
    "deep": (b"[" * 1000, "line 1: too deep nesting"),
    "wide": (b"x: [" + b"a," * 400_000, "line 1: more than 40,000 values"),
    "base 60": (b"x: " + b"1:" * 400_000 + b"1", "line 1: a number of more than 64 characters"),
    "hexadecimal": (b"x: 0x" + b"f" * 800_000, "line 1: a number of more than 64 characters"),
    "base 60 past a float": (b"x: " + b"1:" * 300 + b"1.0", "line 1: a number of more than 64"),
    "second document": (b"a: 1\n---\nb: 2\n", "line 2"),
    "NUL": (b"a: 1\x00", "must be a YAML text"),
    "no UTF-8": (b"\xff\xfea", "must be a YAML text"),
    "no character": (b'a: "\\UFFFFFFFF"', "must be a YAML text"),
    "half a character": (b'a: "\\ud800"', "line 1: half a character"),
    "open list": (b"a: [1", "line 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_more_than_plain_values_is_refused_in_one_line_and_soon(case: str) -> None:
    content, words = BAD[case]
    began = time.process_time()
    with pytest.raises(NotPlainYaml) as caught:
        parse(content)
    assert words in str(caught.value)
    assert str(caught.value).startswith("must be")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert time.process_time() - began < 10  # with the stock loader base 60 alone takes minutes


def test_plain_values_are_read_and_dates_stay_text() -> None:
    text = b"a: [1, 2.5, 3.0e+2, true, null, x]\nb: {on_: '1', day: 2026-11-22}\n<<: 1\n"
    assert parse(text) == {
        "a": [1, 2.5, 300.0, True, None, "x"],
        "b": {"on_": "1", "day": "2026-11-22"},
        "<<": 1,
    }
    assert parse(b"") is None


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    with contextlib.suppress(NotPlainYaml):
        parse(content)


def test_the_value_of_a_key_is_not_repeated_in_a_message() -> None:
    for line in (b"storage: [postgresql://me:hunter22@h", b"storage: 'postgresql://me:hunter22@h"):
        with pytest.raises(NotPlainYaml) as caught:
            parse(line)
        assert "hunter22" not in str(caught.value)


def test_only_regular_files_are_read_and_none_is_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe", tmp_path / "link", Path("/dev/zero"), Path("/dev/tty")):
        with pytest.raises((NotPlainYaml, OSError)) as caught:
            read_bytes(path)
        assert isinstance(caught.value, NotPlainYaml) or path.name == "tty"
    with pytest.raises((NotPlainYaml, IsADirectoryError)):
        read_bytes(tmp_path)


def test_a_file_is_read_up_to_its_largest_size(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    assert len(read_bytes(path)) == MAX_BYTES
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(NotPlainYaml, match="at most 1 MB"):
        read_bytes(path)
    os.truncate(path, 1 << 40)  # a terabyte of holes
    with pytest.raises(NotPlainYaml, match="at most 1 MB"):
        read_bytes(path)
