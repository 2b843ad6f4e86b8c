"""The bundled example, whole, from its files over the log through ingest: what is planted in it is caught."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_cli.publishing.publish import publish_path
from tunewheel_cli.spec_file import read_spec
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.pipeline import build
from tunewheel_curate.records.log import rows_of
from tunewheel_curate.versions.card import data_card
from tunewheel_runtime.consuming import Delivery
from tunewheel_runtime.service import Position
from tunewheel_testing.declaring import declare
from tunewheel_testing.kafka_door import KafkaDoor
from tunewheel_testing.reading import require_project

from .bus import Bus, running
from .test_ingest import ingest

pytestmark = pytest.mark.integration

HELPDESK = Path(__file__).resolve().parents[2] / "examples" / "helpdesk"
WAVES = ("tickets.jsonl", "second_wave.jsonl", "sops", "sops_second")
REASONS = {
    "exact_duplicates": ("exact_duplicate",),
    "near_duplicates": ("near_duplicate",),
    "conflicting_labels": ("conflicting_label",),
    "broken_outputs": ("not_json", "off_schema"),
    "near_empty": ("near_empty",),
}
"""By the kind of a planted fault, what a record that has it is dropped for."""


async def records_of(
    kafka: str, tmp_path: Path, spec: ProjectSpec
) -> tuple[int, list[Envelope[RecordIngested]]]:
    """Publish the example as the command line does; return how many events it was, and ingest's records."""
    options = {"bootstrap_servers": kafka}
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await declare(spec, options, principal=None)
        assert (await require_project(options, spec.project)).spec == spec
        published = 0
        for name in WAVES:
            summary = await publish_path(HELPDESK / name, project=spec.project, door=KafkaDoor(options))
            assert summary.refused == 0, summary.refusals
            published += summary.events
        found = await bus.collect(
            topics.RECORD_INGESTED, published, where=lambda event: event.project == spec.project
        )
    return published, found


def planted(faults: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield kind and tickets of every planted fault but personal data, which drops nothing."""
    for kind, listed in faults.items():
        for fault in listed if kind in REASONS else ():
            match fault:
                case str():
                    yield kind, (fault,)
                case {"ticket_id": ticket}:
                    yield kind, (ticket,)
                case _:
                    yield kind, tuple(fault)


async def test_every_planted_fault_is_caught_on_the_way_from_file_to_card(
    kafka: str, tmp_path: Path, project: str
) -> None:
    spec = read_spec(HELPDESK / "project.yaml").model_copy(update={"project": project})
    published, events = await records_of(kafka, tmp_path, spec)
    assert published == len({event.data.record_id for event in events}) >= 450
    made = build(
        rows_of([Delivery(event, Position("record.ingested", 0, n), {}) for n, event in enumerate(events)]),
        spec,
    )
    assert made.rejections == ()
    card = data_card("ds-x", spec, made)
    faults = json.loads((HELPDESK / "faults.json").read_text())
    reasons = dict(made.lineage.select("source_id", "reason").iter_rows())

    caught: Counter[str] = Counter()
    for kind, tickets in planted(faults):
        dropped = [why for ticket in tickets if (why := reasons[ticket]) is not None]
        assert all(why.startswith(REASONS[kind]) for why in dropped), (kind, tickets, dropped)
        stay = kind in ("exact_duplicates", "near_duplicates")
        assert len(dropped) == len(tickets) - stay, (kind, tickets, dropped)
        caught[kind] += 1
    assert caught == {kind: len(faults[kind]) for kind in REASONS}
    known = tuple(why for kind in REASONS for why in REASONS[kind])
    others = {why for why in reasons.values() if why is not None and not why.startswith(known)}
    assert others == {"document"}, "of what was not planted only documents make no example"

    entities = Counter(entity["type"] for fault in faults["pii"] for entity in fault["entities"])
    told = json.dumps(
        pl.concat([made.split.train, made.split.holdout])["messages"].to_list(), ensure_ascii=False
    )
    assert not [e for fault in faults["pii"] for e in fault["entities"] if e["text"] in told]
    assert made.redactions == entities | {"PERSON": 2}, "two questions name a person"
    funnel = Counter({why: n for stage in made.funnel for why, n in stage.reasons.items()})
    counts = {"exact_duplicate": 7, "near_duplicate": 12, "conflicting_label": 6, "near_empty": 3}
    assert counts.items() <= funnel.items()
    for why, count in [*counts.items(), *entities.items()]:
        assert f"{why}: {count}" in card
