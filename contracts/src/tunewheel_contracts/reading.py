"""Reads JSON of newer writers: events on the log, and artifacts in the object store.

A reader that is older than the writer meets fields and values that it does not know. Refusing the whole
record would lose the rest of it: after a rollback a project would be forgotten. So the reader leaves out the
unknown part and names it:

1. An unknown field is left out, also in an object that people write.
2. An unknown value of an enumeration is left out, and the field takes its default. Fields whose default would
   be unsafe name another value (``if_unknown``).
3. If the field is required, its holder is left out: an entry of a list or map, or an optional object.
4. If no holder can be left out, the record is invalid.

Doors stay strict: people may have misspelt the name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError, ValidationInfo, WrapValidator
from pydantic_core import ErrorDetails, PydanticCustomError, from_json, to_json

LOG_TICK = timedelta(milliseconds=1)
"""Resolution of timestamps on the log, which are rounded down to milliseconds."""
CLOCK_SKEW = timedelta(minutes=5)
"""How far a caller's clock may be ahead of a door's clock."""
UNKNOWN = frozenset(
    {"extra_forbidden", "literal_error", "enum", "unknown_value", "unknown_embedding", "unknown_rule"}
)
"""Errors of fields and values that a newer writer may have added."""
MOST_NAMED = 1_000
"""How many unknown fields of one record are named. No release adds as many; a hostile record of 1 MB has
100,000 of them."""
MORE = "(and more)"
"""Stands for the unknown fields after the first ``MOST_NAMED``."""
M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """The context of one validation.

    ``latest``: no date is later; a later one is replaced, or refused if ``refuses_dates``. ``is_strict``:
    what is unknown is refused. ``unknown``: the dotted names of what was left out.
    """

    latest: datetime | None = None
    refuses_dates: bool = False
    is_strict: bool = False
    unknown: list[str] = field(default_factory=list[str])

    def capped(self, date: datetime) -> datetime:
        if self.latest is None or date < self.latest + LOG_TICK:
            return date
        if self.refuses_dates:
            raise ValueError(
                "is in the future; send the time at which it happened, with its offset from UTC "
                "(a time without one counts as UTC), or leave it out"
            )
        return self.latest


def at_door() -> Reading:
    """Return the context in which a door validates what a caller sent: dates up to five minutes ahead."""
    return Reading(datetime.now(UTC) + CLOCK_SKEW, refuses_dates=True, is_strict=True)


def if_unknown(value: str | None) -> WrapValidator:
    """Return a validator of an enumeration that reads unknown values as ``value``. None: the whole record is
    refused, because no default is safe."""

    def read(sent: Any, validate: Callable[[Any], Any], info: ValidationInfo) -> Any:
        try:
            return validate(sent)
        except ValidationError:
            if not isinstance(info.context, Reading) or info.context.is_strict:
                raise
            if value is None:
                raise PydanticCustomError("unreadable", "has a value that this version lacks") from None
            info.context.unknown.append(info.field_name or "")
            return validate(value)

    return WrapValidator(read)


def read_json(model: type[M], text: str, reading: Reading) -> M:
    """Parse JSON as ``model``, as the module describes; ``reading.unknown`` then names what was left out. A
    null in an unknown field says nothing, so it is not named.

    Raises:
        ValidationError: the JSON does not fit, or ``reading`` is strict and something is unknown.
    """
    try:
        # Open objects ignore unknown fields; forbidding them tells which there were.
        extra = None if reading.is_strict else "forbid"
        return model.model_validate_json(text, strict=True, extra=extra, context=reading)
    except ValidationError as error:
        if reading.is_strict:
            raise
        first, complaints = error, _complaints(error)
    if complaints[0]["type"] == "json_invalid":
        raise first
    data, left_out = from_json(text), list[Path]()
    reading.unknown.extend(_unknown_fields(complaints, data))
    readable: str | bytes = text
    while True:
        try:
            return model.model_validate_json(readable, strict=True, extra="ignore", context=reading)
        except ValidationError as error:
            if not left_out:
                first = error
            places = _unknown_places(_complaints(error), data, left_out)
        if not places:
            raise first
        # From the end of a list to its start, because leaving out one entry moves the later ones.
        for place in sorted(places, key=_order, reverse=True):
            if _leave_out(data, place) is not None:
                reading.unknown.append(_dotted(place))
        left_out += places
        readable = to_json(data)


def _complaints(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False, include_context=False)


def _unknown_fields(complaints: Iterable[ErrorDetails], data: Any) -> list[str]:
    """Return the dotted names of the unknown fields of ``data`` that are not null, each once."""
    names = dict[str, None]()
    for complaint in complaints:
        place = _place(complaint["loc"], data)
        if complaint["type"] != "extra_forbidden" or _at(data, place) is None:
            continue
        if len(names) == MOST_NAMED:
            return [*names, MORE]
        names[_dotted(place)] = None
    return list(names)


def _unknown_places(complaints: Iterable[ErrorDetails], data: Any, left_out: list[Path]) -> set[Path]:
    """Return the places to leave out; none if something is wrong that no newer release explains."""
    kinds: dict[Path, set[str]] = {}
    for complaint in complaints:
        location = complaint["loc"][:-1] if complaint["type"] == "missing" else complaint["loc"]
        kinds.setdefault(_place(location, data), set()).add(complaint["type"])
    unknown = {place for place, types in kinds.items() if place and types & UNKNOWN}
    # Pydantic also complains of what holds something wrong, such as a list without a valid entry.
    around = {place[:n] for place in unknown for n in range(len(place))}
    holders = kinds.keys() - unknown - around
    was_in = {_names(place[: n + 1]) for place in left_out for n in range(len(place))}
    return unknown | holders if all(place and _names(place) in was_in for place in holders) else set()


def _place(location: tuple[str | int, ...], data: Any) -> Path:
    """Return where in ``data`` an error is. Pydantic also names branches of unions, which data does not
    have."""
    place: list[str | int] = []
    for part in location:
        if isinstance(data, dict):
            is_there = part in data
        else:
            is_there = isinstance(data, list) and isinstance(part, int) and part < len(cast(list[Any], data))
        if is_there:
            place.append(part)
            data = cast(Any, data)[part]
    return tuple(place)


def _at(data: Any, place: Path) -> Any:
    for part in place:
        data = data[part]
    return data


def _leave_out(data: Any, place: Path) -> Any:
    return _at(data, place[:-1]).pop(place[-1])


def _order(place: Path) -> list[str]:
    return [part if isinstance(part, str) else f"{part:09}" for part in place]


def _names(place: Path) -> tuple[str, ...]:
    return tuple(part for part in place if isinstance(part, str))


def _dotted(place: Path) -> str:
    return ".".join(_names(place))
