"""Templates of the page. Every value that enters one is escaped, unless it was made as markup here."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape


def breakable(text: str) -> Markup:
    """A long name with places where a line may break: after signs that join its parts."""
    return Markup(re.sub(r"([_=(\[,./])", r"\1<wbr>", str(escape(text))))


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    return environment


def render(template: str, **context: Any) -> str:
    """The text of a template."""
    return _environment().get_template(template).render(**context)
