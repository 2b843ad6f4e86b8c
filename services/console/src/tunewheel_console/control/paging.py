"""Cuts lists into pages. A cursor names the place of a page's last item, so a page begins where the one
before it ended, whatever came meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import Depends, Query
from pydantic import AwareDatetime, BaseModel
from tunewheel_contracts.api.paging import ITEMS, MOST_ITEMS, Page
from tunewheel_runtime.refusals import Refused

T = TypeVar("T")
A = TypeVar("A", bound=BaseModel)
NEVER = datetime.min.replace(tzinfo=UTC)
Place = tuple[datetime, str]
"""The place of an item in a list: its time and its id."""


@dataclass(frozen=True, slots=True)
class Paging:
    """The part of a list that is asked for."""

    limit: int
    after: str | None
    since: datetime | None = None


def paging(
    limit: Annotated[int, Query(ge=1, le=MOST_ITEMS, description="The most items of the page.")] = ITEMS,
    after: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only items that are not older.")] = None,
) -> Paging:
    return Paging(limit, after, since)


Paged = Annotated[Paging, Depends(paging)]


def page_of(
    items: Iterable[T], asked: Paging, *, place: Callable[[T], Place], answer: Callable[[T], A]
) -> Page[A]:
    """Return a page, newest first. ``answer`` describes an item, and is called for the page's items only.
    Raises Refused: the cursor is none."""
    found = sorted(
        (one for one in items if asked.since is None or place(one)[0] >= asked.since), key=place, reverse=True
    )
    rest = found
    if asked.after is not None:
        cursor = cursor_of(asked.after)
        rest = [one for one in found if place(one) < cursor]
    shown = rest[: asked.limit]
    following = text_of(place(shown[-1])) if len(rest) > len(shown) else None
    return Page[A](items=tuple(map(answer, shown)), next=following, total=len(found))


def page_by_number(total: int, asked: Paging, items: Callable[[int, int], Iterable[A]]) -> Page[A]:
    """Return a page of a list that never changes. The cursor is the number of items before. ``items`` returns
    those from a number, from 0, up to another one. Raises Refused: the cursor is none."""
    if asked.after is not None and not asked.after.isdecimal():
        raise _no_cursor()
    begin = min(int(asked.after or 0), total)
    end = min(begin + asked.limit, total)
    return Page[A](items=tuple(items(begin, end)), next=str(end) if end < total else None, total=total)


def text_of(place: Place) -> str:
    """Return the cursor that names ``place``."""
    # "+" would be a space to a reader who does not escape it
    return f"{place[0].isoformat().replace('+00:00', 'Z')}~{place[1]}"


def cursor_of(text: str) -> Place:
    """Return the place that a cursor names. Raises ``Refused``: it is none."""
    time, mark, name = text.partition("~")
    try:
        at = datetime.fromisoformat(time)
    except ValueError:
        raise _no_cursor() from None
    if not mark or at.tzinfo is None:
        raise _no_cursor()
    return at, name


def _no_cursor() -> Refused:
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "after", "is no cursor; send `next` of the page before")
