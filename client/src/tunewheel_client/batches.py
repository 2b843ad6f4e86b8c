"""Makes requests of ingest from items to publish, and reads its receipts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import SET_BY_DOORS

from tunewheel_client.errors import Refused
from tunewheel_client.values import Receipt, RefusedItem

Kind = Literal["ticket", "example", "document"]
Item = Mapping[str, Any] | BaseModel
PATHS: dict[Kind, str] = {"ticket": "tickets", "example": "examples", "document": "documents"}
IDS: dict[Kind, str] = {kind: f"{kind}_id" for kind in PATHS}
BATCH_ITEMS = 1_000
"""The most items of one request. A receipt lists as many refusals."""
BATCH_BYTES = 4 << 20


class _Refusal(BaseModel):
    line: int
    field: str
    reason: str


class _Lowered(BaseModel):
    count: int
    trust: str
    reason: str


class _Receipt(BaseModel):
    """The body of ingest's answers to a request of several lines."""

    accepted: int
    event_ids: list[str] = []
    refused: list[_Refusal] = []
    lowered: _Lowered | None = None


def receipt_of(body: bytes) -> _Receipt | None:
    """Return ingest's receipt; None: the answer is that of a proxy, or of ingest's guard."""
    try:
        return _Receipt.model_validate_json(body)
    except ValidationError:
        return None


def bytes_of(content: Path | bytes) -> bytes:
    """Return the bytes of a file. Raises OSError."""
    return content if isinstance(content, bytes) else content.read_bytes()


def batches(
    project: str, items: Iterable[Item], kind: Kind | None, receipt: Receipt
) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
    """Yield the path of each request, and its lines with the items' numbers. Items of one kind stay in order.
    Those that cannot be sent go to ``receipt``."""
    waiting: dict[str, list[tuple[int, bytes]]] = {}
    sizes: dict[str, int] = {}
    for index, item in enumerate(items):
        try:
            path, line = _line(project, item, kind)
        except Refused as error:
            receipt.refused.append(RefusedItem(index, error.param or "(item)", error.message))
            continue
        batch = waiting.setdefault(path, [])
        sizes[path] = sizes.get(path, 0) + len(line)
        if batch and (len(batch) == BATCH_ITEMS or sizes[path] > BATCH_BYTES):
            yield path, batch
            batch = waiting[path] = []
            sizes[path] = len(line)
        batch.append((index, line))
    yield from ((path, batch) for path, batch in waiting.items() if batch)


def _line(project: str, item: Item, kind: Kind | None) -> tuple[str, bytes]:
    """Return the path and the line of JSON of one item.

    Raises:
        Refused: the kind cannot be told, or a value is no JSON.
    """
    if isinstance(item, BaseModel):
        fields: dict[str, Any] = item.model_dump(mode="json", exclude_none=True, exclude=set(SET_BY_DOORS))
    else:
        fields = dict(item)
    named: list[Kind] = [one for one, name in IDS.items() if name in fields]
    found: list[Kind] = named if kind is None else [kind]
    if len(found) != 1:
        raise Refused(f"cannot be told; give one of {', '.join(IDS.values())}, or kind=", param="(kind)")
    fields.setdefault("project", project)
    name = IDS[found[0]]
    if name not in fields and found[0] != "document":
        # An item without an id gets one from its content, so that publishing it again is the same event.
        fields[name] = content_id(found[0], fields)
    try:
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_plain).encode()
    except (TypeError, ValueError) as error:
        raise Refused(f"is no JSON: {error}", param="(item)") from error
    return PATHS[found[0]], line


def _plain(value: Any) -> str:
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not supported")
