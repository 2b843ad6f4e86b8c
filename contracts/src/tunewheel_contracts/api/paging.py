"""Pages of lists."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import Field

from tunewheel_contracts.fields import Frozen

T = TypeVar("T")
MOST_ITEMS = 1_000
"""The most items of a page."""
ITEMS = 50
"""The items of a page if the request names no ``limit``."""


class Page(Frozen, Generic[T]):
    """A part of a list, newest first."""

    items: tuple[T, ...]
    next: str | None = None
    """The cursor of the next page, for the query's ``after``; None: this is the last page."""
    total: Annotated[int, Field(ge=0)]
    """How many items all pages have together."""
