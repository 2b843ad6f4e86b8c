"""The record table: what ``record.ingested`` said, as rows of a Delta Lake table in the object store.

Curate fills the table, and the records are deleted from the log days later. From then on the table alone
holds their texts. Whoever needs older records than the log has (the index) reads them here.

For each partition of ``record.ingested`` the table remembers the last offset that was appended, as a Delta
application transaction of the name ``transaction_of``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.identity import canonical_json
from tunewheel_contracts.principal import Principal

FOLDER = "records"
"""The folder of the table in the object store."""
_JSON = ("history", "sections", "attributes")
_ONLY_NAMED = ("principal", "authority")
"""Fields of which a row tells the ``Principal.origin``, or nothing."""


def table_url(store_url: str, local_root: Path | None) -> str:
    """Return where the table lies in the store at ``store_url``, which is the folder ``local_root`` if it is
    on this machine."""
    return f"{store_url.rstrip('/')}/{FOLDER}" if local_root is None else str(local_root / FOLDER)


def transaction_of(partition: int) -> str:
    """Return the name of the transaction that remembers a partition's last offset."""
    return f"{RecordIngested.type}-{partition}"


def row_of(event: Envelope[RecordIngested], *, partition: int, offset: int) -> dict[str, Any]:
    """Return the row of one delivery."""
    data = event.data
    return {
        "project": data.project,
        "record_id": data.record_id,
        "kind": data.kind.value,
        "source_id": data.source_id,
        "source_event_id": data.source_event_id,
        "title": data.title,
        "input": data.input,
        "output": data.output,
        "rejected_output": data.rejected_output,
        "rating": data.rating,
        "rated_output": data.rated_output,
        "history": _as_json(data.history),
        "sections": _as_json(data.sections),
        "group": data.group,
        "trust": data.trust.value,
        "validated_by": data.validated_by,
        "principal": None if data.principal is None else data.principal.origin,
        "validated_at": data.validated_at,
        "occurred_at": data.occurred_at,
        "attributes": canonical_json(data.attributes).decode(),
        "event_id": event.id,
        "published_at": event.time,
        "partition": partition,
        "offset": offset,
    }


def record_of(row: Mapping[str, Any]) -> RecordIngested:
    """Return the record of a row; its principal has the same origin and no groups. Columns that an older
    table lacks may be absent."""
    values = {
        name: json.loads(value) if name in _JSON else value
        for name in RecordIngested.model_fields
        if name not in _ONLY_NAMED and (value := row.get(name)) is not None
    }
    if origin := row.get("principal"):
        name, _, issuer = origin.rpartition(" of ")
        values["principal"] = (
            Principal(name=name, issuer=issuer) if name and issuer else Principal(name=origin)
        )
    return RecordIngested.model_validate(values)


def _as_json(values: Sequence[BaseModel]) -> str | None:
    """Return canonical JSON without defaults; None for nothing, as rows of older tables have."""
    if not values:
        return None
    return canonical_json([value.model_dump(mode="json", exclude_defaults=True) for value in values]).decode()
