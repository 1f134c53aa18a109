"""HTML and SVG elements whose texts and attributes are always escaped."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

EMPTY = ("line", "circle", "rect", "meta", "polyline")


class Markup(str):
    """Text that is HTML already; every other text is escaped."""


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """Return an element; `class_` is the attribute class, `stroke_width` is stroke-width, None leaves one out.

    Examples
    --------
    >>> tag("p", "a < b", tag("b", "!"), class_="note")
    '<p class="note">a &lt; b<b>!</b></p>'
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opening = "".join(f' {key}="{html.escape(_number(value))}"' for key, value in given.items())
    if name in EMPTY and not children:
        return Markup(f"<{name}{opening}/>")
    return Markup(f"<{name}{opening}>{join(children)}</{name}>")


def _number(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def join(children: Iterable[object]) -> Markup:
    """Return elements and texts in a row."""
    return Markup("".join(child if isinstance(child, Markup) else html.escape(str(child)) for child in children))


def table(header: Sequence[object], rows: Iterable[Sequence[object]], numbers: Iterable[int] = ()) -> Markup:
    """Return a table; the columns `numbers` are aligned to the right."""
    right = set(numbers)

    def line(cell: str, row: Sequence[object]) -> Markup:
        return tag("tr", *(tag(cell, value, class_="number" if i in right else None) for i, value in enumerate(row)))

    head = [tag("thead", line("th", header))] if any(header) else []
    body = tag("tbody", *(line("td", row) for row in rows))
    return tag("div", tag("table", *head, body), class_="scroll")


def json_script(id: str, value: Any) -> Markup:
    """Return data for a script, in which no text can end the element.

    Examples
    --------
    >>> json_script("names", ["</script>"])
    '<script type="application/json" id="names">["\\\\u003c/script>"]</script>'
    """
    text = json.dumps(value).replace("<", "\\u003c")
    return Markup(f'<script type="application/json" id="{html.escape(id)}">{text}</script>')
