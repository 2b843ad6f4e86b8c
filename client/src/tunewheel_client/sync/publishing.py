# Generated from aio/publishing.py by scripts/client_sync.py; change that file instead.
"""Publishes tickets, examples and documents through ingest's HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunewheel_client.batches import Item, Kind, batches, bytes_of, receipt_of
from tunewheel_client.sync.transport import INGEST, Transport, refusal_of
from tunewheel_client.values import Lowered, Receipt, RefusedItem

RECEIPTS = (403, 413, 422)
"""Statuses whose body is a receipt too."""
PUBLISH_SECONDS = 60.0
"""How much longer than another answer the receipt of a batch may take."""


def publish(transport: Transport, project: str, items: Iterable[Item], kind: Kind | None) -> Receipt:
    """See ``Client.publish``."""
    receipt = Receipt()
    for path, batch in batches(project, items, kind, receipt):
        lines = b"\n".join(line for _, line in batch)
        answer = transport.send(
            "POST", path, service=INGEST, query={"project": project}, content=lines,
            headers={"Content-Type": "application/x-ndjson"}, accepted=RECEIPTS,
            extra_seconds=PUBLISH_SECONDS,
        )  # fmt: skip
        told = receipt_of(answer.content)
        if told is None:
            raise refusal_of(answer, INGEST)
        receipt.accepted += told.accepted
        receipt.event_ids += told.event_ids
        receipt.refused += [RefusedItem(batch[it.line - 1][0], it.field, it.reason) for it in told.refused]
        if (new := told.lowered) is not None:
            count = new.count + (receipt.lowered.count if receipt.lowered else 0)
            receipt.lowered = Lowered(count, new.trust, new.reason)
    return receipt


def publish_file(
    transport: Transport,
    project: str,
    content: Path | bytes,
    told: Mapping[str, Any],
    objects: Mapping[str, Any],
) -> Receipt:
    """See ``Client.publish_file``. ``objects``: fields that are sent as JSON."""
    written = {name: json.dumps(value) for name, value in objects.items() if value}
    query = {**told, **written, "project": project}
    answer = transport.send(
        "POST", "documents", "files", service=INGEST, query=query, content=bytes_of(content),
        headers={"Content-Type": "application/octet-stream"}, extra_seconds=PUBLISH_SECONDS,
    )  # fmt: skip
    made = receipt_of(answer.content)
    if made is None:
        raise refusal_of(answer, INGEST)
    return Receipt(made.accepted, made.event_ids)
