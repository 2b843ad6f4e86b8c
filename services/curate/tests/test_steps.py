from __future__ import annotations

import importlib
from functools import partial

import polars as pl
import pytest
from tunewheel_curate import pipeline
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.records.selection import select
from tunewheel_curate.similarity.near_index import empty_index
from tunewheel_curate.similarity.pairs import SimilarPair, SimilarPairs
from tunewheel_curate.stage import DRAFTED_SCHEMA, RECORD_SCHEMA, Stage, drop, keep_all
from tunewheel_curate.step import Context, Draft, Kind, Lane, Step, run
from tunewheel_curate.steps import ASKED, LATER_STEPS, ROW_STEPS, STEPS


def shouting(rows: pl.DataFrame, *, marks: int) -> Stage:
    """Drop questions with ``marks`` exclamation marks, and count the marks in a column."""
    counted = rows.with_columns(
        pl.col("input").str.count_matches("!").alias("marks"), pl.lit("").alias("output")
    )
    reason = pl.when(pl.col("marks") >= marks).then(pl.lit("shouting"))
    return drop("shouting", counted, reason)


SHOUTING = Step("shouting", shouting, "input", writes="marks", options=lambda c: {"marks": len(c.kind) - 4})


@pytest.fixture
def context(records, spec):
    selected = select(records(), (), ratings=False)
    return partial(Context, spec=spec(), inputs=Inputs(), selected=selected, earlier=empty_index())


@pytest.fixture
def lane(records) -> Lane:
    return Lane(records({"input": "Why?!!"}, {"input": "How?!"}, {"input": "When?"}))


def drafts(**lanes: Lane) -> dict[Kind, Draft]:
    return {Kind(kind): lambda _, lane=lane: lane for kind, lane in lanes.items()}


def test_every_column_that_a_step_reads_was_there_or_was_written_before() -> None:
    columns = {kind: {*RECORD_SCHEMA, *DRAFTED_SCHEMA} for kind in Kind}
    columns |= {Kind.REPLAY: {"messages"}, Kind.PASSAGE: {"document", "input", "messages", "side"}}
    for kind, there in columns.items():
        for step in STEPS:
            if kind in step.kinds:
                assert set(step.reads.split()) <= there, (step.name, kind)
                there |= set(step.writes.split())


def test_no_two_steps_have_one_name() -> None:
    assert len({step.name for step in STEPS}) == len(STEPS)


ONE_FILE = """
import polars as pl
from tunewheel_curate.stage import drop
from tunewheel_curate.step import Kind, Step

def calm(rows, *, marks):
    loud = rows["input"].str.count_matches("!") >= marks
    return drop("calm", rows, pl.when(loud).then(pl.lit("loud")))

CALM = Step("calm", calm, "input", kinds=(Kind.ANSWER,), options=lambda c: {"marks": len(c.kind) - 4})
"""


@pytest.mark.parametrize("of_rows", [True, False])
def test_a_new_step_is_one_file_and_one_line_of_the_list(
    records, spec, varied_rows, tmp_path, monkeypatch, of_rows: bool
) -> None:
    (tmp_path / "calm_step.py").write_text(ONE_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("calm_step").CALM
    monkeypatch.setattr(pipeline, "ROW_STEPS", (*ROW_STEPS, *([own] if of_rows else [])))
    monkeypatch.setattr(pipeline, "LATER_STEPS", (*([] if of_rows else [own]), *LATER_STEPS))
    frame = records(*varied_rows(30), {"input": "Where is the bell of my bicycle now?!!"})
    made = pipeline.build(frame, spec())
    again = pipeline.build(frame, spec(), outcomes=made.outcomes)
    for version in (made, again):
        (stage,) = [stage for stage in version.funnel if stage.stage == "calm"]
        assert (stage.entered, stage.reasons) == (31, {"loud": 1})
        fate = version.lineage.filter(pl.col("record_id") == "rec-0030").row(0, named=True)
        assert (fate["stage"], fate["reason"]) == ("calm", "loud")


def test_a_step_takes_and_gives_the_columns_that_it_declares(lane, context) -> None:
    run(drafts(answer=lane), (SHOUTING,), context)
    assert lane.rows["input"].to_list() == ["How?!", "When?"]
    assert lane.rows["marks"].to_list() == [1, 0]
    (stage,) = lane.stages
    assert stage.funnel.model_dump() == {
        "stage": "shouting", "entered": 3, "left": 2, "reasons": {"shouting": 1},
    }  # fmt: skip


def test_a_column_that_is_not_declared_is_neither_read_nor_written(lane, context) -> None:
    before = lane.rows["output"].to_list()[1:]
    run(drafts(answer=lane), (SHOUTING,), context)
    assert lane.rows["output"].to_list() == before
    blind = Step("blind", shouting, "title", options=lambda _: {"marks": 1})
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        run(drafts(answer=lane), (blind,), context)


def test_a_step_runs_on_the_kinds_that_it_names_and_where_the_spec_asks_for_it(records, context) -> None:
    lanes = {kind: Lane(records({"input": "Why?!!!!"}), prefix=f"{kind}s.") for kind in ASKED}
    unasked = Step("unasked", shouting, "input", kinds=tuple(Kind), options=lambda _: None)
    negative = Step("negative", shouting, "input", kinds=(Kind.NEGATIVE,), options=lambda _: {"marks": 1})
    run(drafts(**lanes), (unasked, negative), context)
    assert {kind: [stage.name for stage in lane.stages] for kind, lane in lanes.items()} == {
        Kind.ANSWER: [], Kind.NEGATIVE: ["negatives.negative"],
    }  # fmt: skip


def test_pairs_follow_their_rows(lane, context) -> None:
    pairs = SimilarPairs.of([SimilarPair(0, 1, 0.9), SimilarPair(1, 2, 0.8)])

    def paired(rows: pl.DataFrame) -> Stage:
        stage = keep_all("paired", rows)
        return Stage(stage.name, stage.kept, stage.dropped, pairs=pairs, shown=False)

    seen: list[SimilarPair] = []

    def looks(rows: pl.DataFrame, pairs: SimilarPairs) -> Stage:
        seen.extend(pairs)
        return keep_all("looks", rows)

    steps = (Step("paired", paired, ""), SHOUTING, Step("looks", looks, "", paired=True))
    run(drafts(answer=lane), steps, context)
    assert seen == [SimilarPair(0, 1, 0.8)]
    assert [stage.name for stage in lane.stages] == ["shouting"]
