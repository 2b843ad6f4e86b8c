from __future__ import annotations

import io
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import StaticEmbedder, Vectors
from tunewheel_monitor.metrics import Metrics
from tunewheel_monitor.reference import (
    Reference,
    References,
    ReferenceUnusable,
    fit,
    labels_of,
    questions_of,
    shares_of_words,
    shortest_of,
    size_of,
    words_in,
)
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_testing.log import wrap

from .conftest import bike_texts, spec_of, store_dataset


def metrics() -> Metrics:
    return Metrics(make_telemetry("monitor", None))


def split(*rows: tuple[str, str, str | None]) -> pl.DataFrame:
    made = [
        {"example_id": name, "messages": [{"role": "user", "content": text}], "format": form}
        for name, text, form in rows
    ]
    return pl.DataFrame(made, schema_overrides={"format": pl.String})


def parquet(frame: pl.DataFrame) -> bytes:
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


def test_only_what_users_ask_is_the_reference() -> None:
    rows = split(
        ("ex-3", "Where is it?", "answer"),
        ("ex-1", 'Quote "Lockers".', "chunk"),
        ("ex-2", "It broke.", "answer"),
        ("ex-0", "Write a poem.", "replay"),
    )
    assert questions_of(rows, limit=10) == ["It broke.", "Where is it?"]
    assert questions_of(rows, limit=1) == ["It broke."]


def test_versions_without_formats_hold_answers_alone() -> None:
    old = split(("ex-1", "It broke.", None))
    assert questions_of(old, limit=10) == questions_of(old.drop("format"), limit=10) == ["It broke."]


def test_one_question_in_a_hundred_of_a_dataset_is_shorter_than_what_is_compared() -> None:
    assert shortest_of(["x" * n for n in range(10, 211)]) == 12
    assert shortest_of(["hi"] * 3 + ["a longer question"] * 97) == len("hi"), "a dataset with greetings"


def test_a_column_of_free_text_holds_no_labels() -> None:
    assert labels_of(pl.DataFrame({"label": ["bell", None, "bell"]})) == {"bell"}
    assert labels_of(pl.DataFrame({"label": [f"Ann wrote {n}" for n in range(501)]})) == set()
    assert labels_of(pl.DataFrame({"messages": []})) == set()


def test_a_reference_knows_the_terms_of_all_rows_and_the_words_of_questions(embedder: StaticEmbedder) -> None:
    asked = [(f"ex-{n}", text, "answer") for n, text in enumerate(bike_texts(20))]
    rows = split(*asked, ("ex-99", "Order LM-0042.", "chunk"))
    reference = fit("ds-1", [parquet(rows[:15]), parquet(rows[15:])], embed=embedder.embed, limit=100)
    assert isinstance(reference, Reference)
    assert "lm-0042" in reference.terms
    assert reference.words["again"] == 1.0
    assert "order" not in reference.words
    assert reference.coverage.units.dtype == "float32"


def test_labels_of_the_questions_become_topics(embedder: StaticEmbedder) -> None:
    asked = [(f"ex-{n:03}", text, "answer") for n, text in enumerate(bike_texts(80))]
    rows = split(*asked, ("ex-999", "Order LM-0042.", "chunk"))
    labels = [None if n == 7 else f"label-{n % 12}" for n in range(81)]
    labelled = rows.with_columns(pl.Series("label", labels))
    topics = fit("ds-1", [parquet(labelled)], embed=embedder.embed, limit=60).coverage.topics
    assert topics is not None
    assert (len(topics.counts), topics.counts.sum()) == (13, 60)
    assert fit("ds-1", [parquet(rows)], embed=embedder.embed, limit=60).coverage.topics is None


def test_few_texts_are_no_reference(embedder: StaticEmbedder) -> None:
    with pytest.raises(ReferenceUnusable, match="it has 1 texts; at least 10 are needed"):
        fit("ds-1", [parquet(split(("ex-1", "It broke.", "answer")))], embed=embedder.embed, limit=10)


async def test_a_dataset_that_is_gone_is_no_reference_and_others_are_remembered(
    embedder: StaticEmbedder, tmp_path: Path
) -> None:
    store = ObjectStore(tmp_path.as_uri())
    references = References(store, embedder, 100, metrics())
    assert await references.get("ds-gone") is None
    await store_dataset(store, spec_of(), "ds-1", bike_texts(40))
    assert await references.get("ds-1") is await references.get("ds-1") is not None


async def test_a_dataset_whose_vectors_cannot_be_fitted_is_no_reference(tmp_path: Path) -> None:
    class Broken(StaticEmbedder):
        def embed(self, texts: Sequence[str]) -> Vectors:
            return np.full((len(texts), 4), np.nan)

    store = ObjectStore(tmp_path.as_uri())
    await store_dataset(store, spec_of(), "ds-1", bike_texts(40))
    with capture_logs() as said:
        assert await References(store, Broken(), 100, metrics()).get("ds-1") is None
    assert [line["event"] for line in said] == ["reference_unusable"]


@pytest.mark.parametrize("projects", [65, pytest.param(200, marks=pytest.mark.nightly("matrices"))])
async def test_projects_that_take_turns_have_their_references_fitted_once(
    embedder: StaticEmbedder, tmp_path: Path, projects: int
) -> None:
    store = ObjectStore(tmp_path.as_uri())
    references = References(store, embedder, 100, metrics())
    for n in range(projects):
        await store_dataset(store, spec_of(), f"ds-{n}", bike_texts(12))
    for _ in range(3):
        for n in range(projects):
            assert await references.get(f"ds-{n}") is not None
    assert references.metrics.value("references.fitted") == projects


async def test_where_memory_is_short_some_references_are_fitted_again_and_some_are_found(
    embedder: StaticEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(tmp_path.as_uri())
    references = References(store, embedder, 100, metrics())
    for n in range(10):
        await store_dataset(store, spec_of(), f"ds-{n}", bike_texts(12))
    one = await references.get("ds-0")
    monkeypatch.setattr("tunewheel_monitor.reference.MOST_BYTES", 9 * size_of(one))
    for _ in range(5):
        for n in range(10):
            await references.get(f"ds-{n}")
    assert references.metrics.value("references.missed") < 25


class Unable(SentenceEmbedder):
    """Has the encoder's name, and must not be needed."""

    def units(self, texts: Sequence[str]) -> Vectors:
        raise AssertionError("the vectors are stored")


async def encoded(store: ObjectStore, embedder: StaticEmbedder, encoder: SentenceEmbedder) -> Reference:
    references = References(store, embedder, 100, metrics(), encoder)
    first = await references.get("ds-1")
    assert first is not None
    assert first.encoding is None, "scoring does not wait for it"
    await references.encoded()
    found = await references.get("ds-1")
    assert found is not None
    assert found.encoding is not None
    assert size_of(found) > size_of(first)
    return found


async def test_a_dataset_is_encoded_once_for_all_processes_and_after_damage_again(
    embedder: StaticEmbedder, encoder: SentenceEmbedder, tmp_path: Path
) -> None:
    store = ObjectStore(tmp_path.as_uri())
    await store_dataset(store, spec_of(), "ds-1", bike_texts(40))
    made = await encoded(store, embedder, encoder)
    read = await encoded(store, embedder, Unable())
    assert (read.encoding and read.encoding.encoder) == encoder.name
    assert (made.encoding and made.encoding.coverage.facts.texts) == 40
    scores = [
        one.encoding.coverage.score(encoder.units(["My bell rings"])) for one in (made, read) if one.encoding
    ]
    assert scores[0].novelty == pytest.approx(scores[1].novelty, abs=2e-3)
    (path,) = await store.list("monitor/desk/encodings")
    for damaged in (b"", b"no array", (await store.read(path) or b"")[:-100]):
        await store.replace(path, damaged)
        await encoded(store, embedder, encoder)
        assert len(await store.read(path) or b"") > 40 * 384


async def test_only_the_newest_version_s_encoding_is_stored_and_readiness_tells_while_it_is_made(
    embedder: StaticEmbedder, encoder: SentenceEmbedder, tmp_path: Path
) -> None:
    store, said = ObjectStore(tmp_path.as_uri()), list[tuple[str, str | None]]()
    references = References(store, embedder, 100, metrics(), encoder, warn=lambda *told: said.append(told))
    for dataset_id in ("ds-1", "ds-2"):
        await store_dataset(store, spec_of(), dataset_id, bike_texts(40))
        await references.get(dataset_id)
        await references.encoded()
        (path,) = await store.list("monitor/desk/encodings")
        assert path.startswith(f"monitor/desk/encodings/{dataset_id}.")
    assert [(name, text is None) for name, text in said] == [
        (f"encoding of {dataset_id}", over) for dataset_id in ("ds-1", "ds-2") for over in (False, True)
    ]


@pytest.mark.parametrize(
    ("refreshes", "age", "kept"),
    [(0, 2, 1), (0, 0.5, 0), (1, 0, 0), (2, 0, 0), (2, 300, 0)],
    ids=["long ago", "half a day ago", "while it is encoded", "while it is stored", "of earlier data"],
)
async def test_no_encoding_is_stored_while_an_erasure_is_under_way(
    embedder: StaticEmbedder, encoder: SentenceEmbedder, tmp_path: Path, refreshes: int, age: float, kept: int
) -> None:
    store, erasures, read = ObjectStore(tmp_path.as_uri()), Erasures(), list[int]()
    at = datetime.now(UTC) - timedelta(days=age)
    told = {
        "project": "desk",
        "customer": "C-1",
        "erasure_id": "e-1",
        "requested_by": "p",
        "requested_at": at,
    }

    async def refresh() -> None:
        if len(read) == refreshes:
            erasures.apply(wrap(ErasureRequested.model_validate(told)))
        read.append(1)

    await refresh()
    await store_dataset(store, spec_of(), "ds-1", bike_texts(40))
    references = References(store, embedder, 100, metrics(), encoder, erasures, refresh)
    await references.get("ds-1")
    await references.encoded()
    found = await references.get("ds-1")
    assert found is not None
    assert found.encoding is not None
    assert len(await store.list("monitor/desk/encodings")) == kept


async def test_an_encoding_waits_for_the_store(
    embedder: StaticEmbedder, encoder: SentenceEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(tmp_path.as_uri())
    await store_dataset(store, spec_of(), "ds-1", bike_texts(40))
    monkeypatch.setattr("tunewheel_monitor.reference.RETRY_SECONDS", 0.0)
    put, failures = store.first, [TransientError("the store is away")] * 2

    async def first(path: str, data: bytes) -> bytes:
        if failures:
            raise failures.pop()
        return await put(path, data)

    monkeypatch.setattr(store, "first", first)
    await encoded(store, embedder, encoder)
    assert failures == []


async def test_a_dataset_that_cannot_be_encoded_is_judged_by_static_vectors(
    embedder: StaticEmbedder, tmp_path: Path
) -> None:
    class Broken(SentenceEmbedder):
        def units(self, texts: Sequence[str]) -> Vectors:
            return np.full((len(texts), 4), np.nan)

    store = ObjectStore(tmp_path.as_uri())
    await store_dataset(store, spec_of(), "ds-1", bike_texts(40))
    references = References(store, embedder, 100, metrics(), Broken())
    await references.get("ds-1")
    with capture_logs() as said:
        await references.encoded()
    found = await references.get("ds-1")
    assert (found and found.encoding) is None
    assert found is not None
    assert [line["event"] for line in said] == ["encoding_unusable"]


async def test_a_round_of_unusable_datasets_reads_each_once(embedder: StaticEmbedder, tmp_path: Path) -> None:
    references = References(ObjectStore(tmp_path.as_uri()), embedder, 100, metrics())
    with capture_logs() as said:
        for n in (*range(100), *range(100)):
            await references.get(f"ds-{n}")
    assert len(said) == 100
    assert references.metrics.value("references.fitted") == 0


def test_words_are_told_without_what_may_be_personal() -> None:
    assert words_in("Call 0170-123 or LM-0042, my Bike is at it") == {"call", "bike"}
    assert shares_of_words(["my bike", "her bike and lamp"]) == {
        "bike": 1.0,
        "her": 0.5,
        "and": 0.5,
        "lamp": 0.5,
    }
