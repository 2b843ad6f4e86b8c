"""Erasure on a real table and a real store: the bytes are gone, the proof says what there was."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.documents.teaching import note_sources, read_lessons, taught_of
from tunewheel_curate.outcomes import OutcomeCache, no_outcomes
from tunewheel_curate.pipeline import build
from tunewheel_curate.records.forgetting import finding_ref, forget, recall
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.versions.versioning import under_pseudonyms, write_version
from tunewheel_retrieval.sections import Section
from tunewheel_runtime.store import ObjectStore

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
NAMES = Pseudonyms("shop", "a secret of the installation")


@pytest.fixture
def rows(records, varied_rows) -> pl.DataFrame:
    return records(*(row | {"group": f"person-{n}"} for n, row in enumerate(varied_rows(30))))


@pytest.fixture
def table(tmp_path: Path, rows: pl.DataFrame) -> RecordTable:
    table = RecordTable(str(tmp_path / "records"))
    table.append(rows)
    return table


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path.as_uri())


def letter(rows: pl.DataFrame, **subject: str):
    data = ErasureRequested.model_validate(
        {"project": "shop", "erasure_id": "letter-1", "requested_by": "privacy"} | subject
    )
    return new_event(data, source="/test", time=rows["published_at"].max() + timedelta(seconds=1))


class Warnings(dict[str, str]):
    """The standing warnings, by name."""

    def warn(self, name: str, text: str | None) -> None:
        self.pop(name, None)
        if text is not None:
            self[name] = text


async def carried_out(event, *, warn=Warnings().warn, **places) -> ErasureFinding:
    return await forget(event, Erasures().asked_by(event), names=NAMES, warn=warn, **places)


async def stored_version(
    rows: pl.DataFrame, spec, store: ObjectStore, tmp_path: Path, names: Pseudonyms | None = None
) -> str:
    """Store a version of ``rows``; without ``names`` as it was written before there were pseudonyms."""
    folder, made = tmp_path / "version", build(rows, spec)
    named = made if names is None else under_pseudonyms(made, names)
    manifest = write_version(named, spec, folder)
    await store.put_directory(f"datasets/{manifest.dataset_id}", folder)
    return manifest.dataset_id


async def test_the_proof_names_the_versions_and_says_the_same_when_repeated(
    table, store, rows, spec, tmp_path: Path
) -> None:
    held = await stored_version(rows, spec(), store, tmp_path)
    await stored_version(rows[10:], spec(), store, tmp_path / "without")
    event, outcomes = letter(rows, customer="person-3"), build(rows, spec()).outcomes
    for project in ("shop", "bank"):
        await OutcomeCache(store).write(project, outcomes, earlier=no_outcomes())
    found = await carried_out(event, table=table, store=store, deletes=lambda _: False)
    kept = {project: (await OutcomeCache(store).read(project)).height for project in ("shop", "bank")}
    assert kept == {"shop": 0, "bank": 30}
    assert found == ErasureFinding(records=1, dataset_ids=(held,), record_ids=("rec-0003",))
    assert "person-3" not in table.read("shop", {})["group"].to_list()
    assert table.arrivals().height == 29
    again = await carried_out(event, table=table, store=store, deletes=lambda _: False)
    assert again == found
    ref = await finding_ref(event, store)
    assert ref is not None
    assert ErasureFinding.model_validate_json(await store.get(ref)) == found
    assert await store.exists(f"datasets/{held}/train.parquet")


async def test_a_version_that_holds_only_an_answer_to_avoid_is_named(
    store, records, varied_rows, spec, tmp_path: Path
) -> None:
    asked = {"kind": "feedback", "source_id": "chat-1", "group": "person-x", "input": "does it ring twice"}
    thumb = asked | {"output": None, "rating": "down", "rated_output": "Never."}
    rows = records(*(row | {"group": f"person-{n}"} for n, row in enumerate(varied_rows(30))), thumb)
    held = await stored_version(rows, spec(ratings=True), store, tmp_path)
    await stored_version(rows, spec(), store, tmp_path / "without")
    table = RecordTable(str(tmp_path / "records"))
    table.append(rows)
    event = letter(rows, customer="person-x")
    found = await carried_out(event, table=table, store=store, deletes=lambda _: False)
    assert found == ErasureFinding(records=1, dataset_ids=(held,), record_ids=("rec-0030",))


async def test_a_version_that_only_lists_a_contradiction_for_review_is_named(
    store, records, varied_rows, spec, tmp_path: Path
) -> None:
    asked = {"input": "which of the two bells belongs on the left side of the handlebar"}
    bell, horn = (asked | {"output": json.dumps({"category": said})} for said in ("bell", "horn"))
    rows = records(*varied_rows(30), bell | {"group": "person-x"}, horn | {"group": "person-y"})
    held = await stored_version(rows, spec(), store, tmp_path)
    assert "person-x" not in pl.read_parquet(tmp_path / "version" / "train.parquet")["group"]
    table = RecordTable(str(tmp_path / "records"))
    table.append(rows)
    event = letter(rows, customer="person-x")
    found = await carried_out(event, table=table, store=store, deletes=lambda _: True)
    assert found == ErasureFinding(records=1, dataset_ids=(held,), record_ids=("rec-0030",))
    assert not await store.exists(f"datasets/{held}/review.parquet")


async def test_a_record_that_was_published_under_another_customer_too_is_forgotten_whole(
    store, records, varied_rows, spec, tmp_path: Path
) -> None:
    text = "my name is Jane Roe and the bell of my Heron is silent"
    wrong = {"record_id": "rec-jane", "source_id": "T-jane", "input": text, "group": "somebody", "offset": 90}
    right = wrong | {"group": "jane", "offset": 91, "published_at": NOON}
    rows = records(*varied_rows(30), wrong, right)
    table = RecordTable(str(tmp_path / "records"))
    table.append(rows)
    held = await stored_version(rows[:31], spec(), store, tmp_path)  # of the time of the wrong customer
    event = letter(rows, customer="jane")
    found = await carried_out(event, table=table, store=store, deletes=lambda _: True)
    assert (found.records, found.record_ids, found.dataset_ids) == (1, ("rec-jane",), (held,))
    assert not table.read("shop", {}).filter(pl.col("input") == text).height
    assert not await store.exists(f"datasets/{held}/train.parquet")

    # A process that did not carry it out refuses the old text too, whoever it is sent for.
    other = RecordTable(str(tmp_path / "elsewhere"))
    erasure = Erasures().asked_by(event)
    assert await recall(other, store, {event.id: erasure}) == {event.id}
    assert other.append(records(wrong), erasures=(erasure,)) == 0


async def test_a_source_is_forgotten_too(table, store, rows, spec, tmp_path: Path) -> None:
    held = await stored_version(rows, spec(), store, tmp_path)
    found = await carried_out(
        letter(rows, source_id="T-5"), table=table, store=store, deletes=lambda _: False
    )
    assert found == ErasureFinding(records=1, dataset_ids=(held,), record_ids=("rec-0005",))
    assert table.arrivals().height == 29


@pytest.mark.parametrize("names", [NAMES, None], ids=["pseudonyms", "plain"])
async def test_a_version_is_known_by_its_rows_where_the_table_is_lost(
    store, rows, spec, tmp_path: Path, names: Pseudonyms | None
) -> None:
    held = await stored_version(rows, spec(), store, tmp_path, names)
    empty = RecordTable(str(tmp_path / "elsewhere"))
    found = await carried_out(
        letter(rows, customer="person-3"), table=empty, store=store, deletes=lambda _: False
    )
    assert found == ErasureFinding(records=0, dataset_ids=(held,), record_ids=("rec-0003",))


async def test_rows_of_versions_go_where_the_project_says_so(
    table, store, rows, spec, tmp_path: Path
) -> None:
    held = await stored_version(rows, spec(), store, tmp_path)
    other = await stored_version(rows[10:], spec(), store, tmp_path / "without")
    await carried_out(letter(rows, customer="person-3"), table=table, store=store, deletes=lambda _: True)
    left = [path.removeprefix(f"datasets/{held}/") for path in await store.list(f"datasets/{held}")]
    assert left == ["holdout_memory.parquet", "manifest.json"]
    assert await store.exists(f"datasets/{other}/train.parquet")


async def test_what_is_published_and_versioned_again_outlives_a_second_delivery(
    table, store, rows, spec, tmp_path: Path
) -> None:
    """The same rows make the same version, under the name that the erasure found."""
    held = await stored_version(rows, spec(), store, tmp_path)
    known, event = Erasures(), letter(rows, customer="person-3")
    places = {"table": table, "store": store, "names": NAMES, "deletes": lambda _: True}
    places["warn"] = Warnings().warn
    found = await forget(event, known.asked_by(event), **places)

    again = rows.filter(pl.col("group") == "person-3").with_columns(
        published_at=pl.lit(event.time + timedelta(minutes=1), dtype=pl.Datetime("us", "UTC")),
        offset=pl.lit(1_000, dtype=pl.Int64),
    )
    table.append(again, erasures=known.all())
    await stored_version(rows, spec(), store, tmp_path / "again")
    sent_anew = replace(event, time=event.time + timedelta(hours=1))
    assert await forget(sent_anew, known.asked_by(sent_anew), **places) == found
    assert table.read("shop", {"0": 1_001}).filter(pl.col("group") == "person-3").height == 1
    assert await store.exists(f"datasets/{held}/train.parquet")


async def test_what_a_teacher_said_of_an_erased_document_goes_once(table, store, rows) -> None:
    section = Section("rec-1", "T-5", "T", (), (DocumentSection(text="Ring twice."),))
    keys = {"a" * 64: section, "b" * 64: replace(section, group="T-6")}
    for key in keys:
        await store.put(f"teacher/{key}.json", b'{"pairs":[]}')
    await note_sources(store, "shop", keys)
    event = letter(rows, source_id="T-5")
    places = {"table": table, "store": store, "deletes": lambda _: False}
    found = await carried_out(event, **places)
    assert found.lessons == ("a" * 64,)
    assert set(await read_lessons(store, list(keys))) == {"b" * 64}
    assert await taught_of(store, "shop", "T-5") == ()
    await store.put(f"teacher/{'a' * 64}.json", b'{"pairs":[]}')  # published again, and asked about again
    assert await carried_out(event, **places) == found
    assert set(await read_lessons(store, list(keys))) == set(keys)


async def test_nobody_of_that_name_is_a_proof_of_nothing(table, store, rows) -> None:
    found = await carried_out(
        letter(rows, customer="nobody"), table=table, store=store, deletes=lambda _: True
    )
    assert found == ErasureFinding(records=0)
    assert table.arrivals().height == 30


async def replace_file(store: ObjectStore, path: str, data: bytes | None) -> None:
    await store.delete([path])
    if data is not None:
        await store.put(path, data)


@pytest.mark.parametrize(
    ("manifest", "is_told"),
    [
        (b"{", True),
        (b'{"dataset_id": "ds-1"}', True),
        (None, False),
        (b'{"project": "shop", "format": 2}', False),  # a newer release moved all other fields
    ],
    ids=["not JSON", "no project", "missing", "newer release"],
)
async def test_a_version_without_a_readable_manifest_is_searched_by_its_rows(
    table, store, rows, spec, tmp_path: Path, manifest: bytes | None, is_told: bool
) -> None:
    held = await stored_version(rows, spec(), store, tmp_path, NAMES)
    await stored_version(rows[10:], spec(), store, tmp_path / "without", NAMES)
    path, warnings = f"datasets/{held}/manifest.json", Warnings()
    intact = await store.read(path)
    await replace_file(store, path, manifest)
    places = {"table": table, "store": store, "deletes": lambda _: False, "warn": warnings.warn}
    found = await carried_out(letter(rows, customer="person-3"), **places)
    assert found == ErasureFinding(records=1, dataset_ids=(held,), record_ids=("rec-0003",))
    assert "person-3" not in table.read("shop", {})["group"].to_list()
    assert list(warnings) == [f"damaged {path}"] * is_told

    await replace_file(store, path, intact)
    await carried_out(letter(rows, customer="person-4"), **places)
    assert not warnings


@pytest.mark.parametrize("is_readable", [True, False])
async def test_damaged_rows_count_as_holding_what_is_erased_in_their_own_project_only(
    table, store, rows, spec, tmp_path: Path, is_readable: bool
) -> None:
    """Rows of a version that is nobody's for want of a manifest belong to no project's proof."""
    held = await stored_version(rows[10:], spec(), store, tmp_path, NAMES)
    path, warnings = f"datasets/{held}/train.parquet", Warnings()
    await replace_file(store, path, b"PAR1")
    if not is_readable:
        await replace_file(store, f"datasets/{held}/manifest.json", b"{")
    found = await carried_out(
        letter(rows, customer="person-3"),
        table=table,
        store=store,
        deletes=lambda _: False,
        warn=warnings.warn,
    )
    assert found.records == 1
    assert found.dataset_ids == ((held,) if is_readable else ())
    assert f"damaged {path}" in warnings


async def test_a_damaged_version_of_another_project_with_the_same_customer_is_not_named(
    table, store, rows, spec, tmp_path: Path
) -> None:
    theirs = rows.with_columns(record_id=pl.col("record_id") + "-of-them")
    held = await stored_version(theirs, spec(), store, tmp_path)
    await replace_file(store, f"datasets/{held}/manifest.json", b"")
    found = await carried_out(
        letter(rows, customer="person-3"), table=table, store=store, deletes=lambda _: True
    )
    assert (found.records, found.dataset_ids) == (1, ())
    assert await store.exists(f"datasets/{held}/train.parquet")
