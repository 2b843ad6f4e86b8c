"""Finds every page of a console by its links."""

from __future__ import annotations

import html
import re
from collections import deque
from collections.abc import Mapping
from urllib.parse import urljoin, urlsplit

import httpx
from tunewheel_console.pages.addresses import ADDRESSES

from tunewheel_testing.console import KEY

SHAPES = {one.path: re.compile(re.sub(r"\{[^}]+\}", "[^/]+", one.path)) for one in ADDRESSES}
BEGINS = ("/projects", "/dead-letters", "/services", "/audit", "/keys")
MOST = 8
HEADERS = {"authorization": f"Bearer {KEY}"}


async def some_pages(url: str, headers: Mapping[str, str] = HEADERS) -> dict[str, int]:
    """Return the status of pages of the console at ``url``, by path and query: of each address at most
    ``MOST``, those that a link leads to first."""
    seen, todo = dict[str, int](), deque[str](BEGINS)
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        while todo:
            path = todo.popleft()
            shape = shape_of(path)
            if path in seen or shape is None or sum(shape_of(one) == shape for one in seen) == MOST:
                continue
            answer = await client.get(path)
            seen[path] = answer.status_code
            links = (html.unescape(link) for link in re.findall(r'href="([^"]+)"', answer.text))
            todo += [urljoin(path, link).partition("#")[0] for link in links]
    return seen


def shape_of(path: str) -> str | None:
    """Return the address of ``ADDRESSES`` that answers ``path``."""
    bare = urlsplit(path).path
    return next((name for name, shape in SHAPES.items() if shape.fullmatch(bare)), None)


def one_of_each(pages: dict[str, int]) -> dict[str, str]:
    """Return for each address of ``ADDRESSES`` the path of the first of ``pages`` that is of its kind."""
    found = dict[str, str]()
    for path in pages:
        if shape := shape_of(path):
            found.setdefault(shape, path)
    return found
