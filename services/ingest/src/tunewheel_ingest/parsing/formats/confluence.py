"""Turns the elements of Confluence's storage format into those of HTML.

Source: "Confluence Storage Format" in Atlassian's documentation.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

_CDATA = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
VERBATIM = ("code", "noformat")
PANELS = ("info", "note", "tip", "warning")
_DROPPED = ("ac:parameter", "ac:emoticon", "ac:placeholder", "ac:task-id", "ac:task-status", "ac:image")
_RENAMED = dict.fromkeys(
    ("ac:structured-macro", "ac:layout", "ac:layout-section", "ac:layout-cell", "ac:rich-text-body"), "div"
) | {"ac:task-list": "ul"}


def is_confluence(page: str | bytes) -> bool:
    """Return whether a page has elements of Confluence's storage format."""
    return (b"<ac:" if isinstance(page, bytes) else "<ac:") in page  # type: ignore[operator]


def without_cdata(page: str | bytes) -> str:
    """Return a page with the text of its CDATA sections escaped, as HTML has no CDATA."""
    text = page if isinstance(page, str) else page.decode("utf-8", "replace")
    return _CDATA.sub(lambda found: html.escape(found[1]), text)


def settle_macros(soup: BeautifulSoup) -> None:
    """Change Confluence's elements in place: code macros, panels, task lists, links and layouts. Macros
    without a text, such as tables of contents, go."""
    for macro in reversed(soup.find_all("ac:structured-macro")):  # the inner ones first
        _settle_macro(soup, macro)
    for task in soup.find_all("ac:task"):
        status, body = task.find("ac:task-status"), task.find("ac:task-body")
        if body is not None:
            body.name = "li"
            is_done = status is not None and status.get_text(strip=True) == "complete"
            body.insert(0, "[x] " if is_done else "[ ] ")
        task.unwrap()
    for link in soup.find_all("ac:link"):
        page = link.find("ri:page")
        if not link.get_text(strip=True) and page is not None:
            link.append(str(page.get("ri:content-title", "")))
        link.unwrap()
    for tag in soup.find_all(_DROPPED):
        tag.decompose()
    for tag in soup.find_all(list(_RENAMED)):
        tag.name = _RENAMED[tag.name]


def _settle_macro(soup: BeautifulSoup, macro: Tag) -> None:
    name = str(macro.get("ac:name", ""))
    parameters = macro.find_all("ac:parameter", recursive=False)
    said = {str(one.get("ac:name")): one.get_text(strip=True) for one in parameters}
    body = macro.find(["ac:plain-text-body", "ac:rich-text-body"], recursive=False)
    if body is None:
        macro.decompose()
        return
    title, label = said.get("title", ""), name.capitalize() if name in PANELS else ""
    if name in VERBATIM:
        body.name = "pre"
        body["class"] = f"language-{said['language']}" if said.get("language") else ""
    if title or label:
        heading = soup.new_tag("p")
        heading.string = ": ".join(part for part in (label, title) if part)
        body.insert_before(heading)
