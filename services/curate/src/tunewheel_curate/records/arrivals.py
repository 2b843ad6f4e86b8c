"""Deliveries of ``record.ingested`` as rows of the record table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from pydantic import BaseModel
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.identity import canonical_json
from tunewheel_runtime.service import Delivery

from tunewheel_curate.stage import RECORD_SCHEMA


def rows_of(deliveries: Sequence[Delivery[RecordIngested]]) -> pl.DataFrame:
    """Return one row of ``RECORD_SCHEMA`` per delivery."""
    return pl.DataFrame([_row(delivery) for delivery in deliveries], schema=RECORD_SCHEMA)


def _row(delivery: Delivery[RecordIngested]) -> dict[str, Any]:
    event, position = delivery.event, delivery.position
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
        "history": _json(data.history),
        "sections": _json(data.sections),
        "group": data.group,
        "trust": data.trust.value,
        "validated_by": data.validated_by,
        "validated_at": data.validated_at,
        "occurred_at": data.occurred_at,
        "attributes": canonical_json(data.attributes).decode(),
        "event_id": event.id,
        "published_at": event.time,
        "partition": position.partition,
        "offset": position.offset,
    }


def _json(values: Sequence[BaseModel]) -> str | None:
    """Return canonical JSON without defaults; None for nothing, as rows of older tables have."""
    if not values:
        return None
    return canonical_json([value.model_dump(mode="json", exclude_defaults=True) for value in values]).decode()
