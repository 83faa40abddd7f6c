"""The templates of the pages and pictures: whatever is put into them is escaped."""

from functools import lru_cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from tuner.report.numbers import number


def render(template: str, **values: object) -> str:
    """Return a template of the folder `pages` with its values filled in."""
    return _environment().get_template(template).render(**values)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("tuner.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment
