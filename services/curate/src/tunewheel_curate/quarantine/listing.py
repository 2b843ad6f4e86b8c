"""Where the list of a project's quarantined records lies: the object ``quarantine/<project>.json``."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import polars as pl
import structlog
from pydantic import ValidationError
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.quarantine import Quarantine, QuarantinedRecord, quarantine_path
from tunewheel_runtime.store import ObjectStore

log = structlog.get_logger(__name__)
MOST_LISTED = 2_000
"""Most records of one reason in the list. The others come up once these are judged."""
SHOWN = 4_000
"""Most characters of a text in the list."""


async def write_quarantine(
    store: ObjectStore, project: str, waiting: pl.DataFrame, upto: Mapping[str, int]
) -> None:
    """Replace the list of ``project``. If the store is away, the next build does it."""
    listed = waiting.group_by("reason", maintain_order=True).head(MOST_LISTED).sort("reason", "record_id")
    texts = listed.with_columns(pl.col("input", "output").str.slice(0, SHOWN), pl.col("origin").fill_null(""))
    rows = tuple(map(QuarantinedRecord.model_validate, texts.to_dicts()))
    found = Quarantine(project=project, records_upto=dict(upto), records=rows)
    try:
        await store.replace(quarantine_path(project), found.model_dump_json().encode())
    except TransientError as error:
        log.warning("quarantine_unwritten", project=project, error=str(error))


async def forget_quarantined(store: ObjectStore, project: str, record_ids: Collection[str]) -> None:
    """Take erased records out of the list of ``project``. A list that cannot be read is deleted.

    Raises:
        TransientError: the store is away.
    """
    path = quarantine_path(project)
    if (data := await store.read(path)) is None:
        return
    try:
        found = Quarantine.model_validate_json(data)
    except ValidationError:
        await store.delete([path])
        return
    left = tuple(one for one in found.records if one.record_id not in record_ids)
    if len(left) < len(found.records):
        await store.replace(path, found.model_copy(update={"records": left}).model_dump_json().encode())
