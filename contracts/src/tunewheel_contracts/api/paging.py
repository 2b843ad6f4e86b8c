"""Pages of lists."""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import ConfigDict, Field

from tunewheel_contracts.fields import Frozen

T = TypeVar("T")
MOST_ITEMS = 1_000
"""The most items of a page."""
ITEMS = 50
"""The items of a page if the request names no ``limit``."""


class Page(Frozen, Generic[T]):
    """A part of a list, newest first."""

    # Each ``Page[...]`` is a class of its own, for which pydantic would parse the source of whoever names it.
    model_config = ConfigDict(use_attribute_docstrings=False)

    items: tuple[T, ...]
    next: Annotated[
        str | None,
        Field(
            description="The cursor of the next page, for the query's ``after``; None: this is the last page."
        ),
    ] = None
    total: Annotated[int, Field(ge=0, description="How many items all pages have together.")]
