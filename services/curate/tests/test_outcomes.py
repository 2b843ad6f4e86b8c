"""What the row steps made of a row is kept for the next build, and changes nothing but time."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.outcomes import OutcomeCache, no_outcomes
from tunewheel_curate.records.selection import select
from tunewheel_curate.similarity.near_index import empty_index
from tunewheel_curate.stage import Stage, counted, drop, keep_all
from tunewheel_curate.step import Context, Kind, Lane, Step, run
from tunewheel_runtime.store import ObjectStore

Runs = tuple[Lane, pl.DataFrame, list[str]]


@pytest.fixture
def passed(records, spec):
    """Runs two row steps on questions; returns the lane, the outcomes, and which rows the first step saw."""
    context = partial(
        Context, spec=spec(), inputs=Inputs(), selected=select(records(), (), ratings=False),
        earlier=empty_index(),
    )  # fmt: skip

    def runs(*texts: str, outcomes: pl.DataFrame | None = None, most: Any = 2, **more: Any) -> Runs:
        seen: list[str] = []

        def calm(rows: pl.DataFrame, *, most: int) -> Stage:
            seen.extend(rows["record_id"])
            marks = rows["input"].str.count_matches("!").to_list()
            said = rows.with_columns(pl.col("input").str.replace_all("!", "."), flags=pl.lit("calm"))
            stage = drop("calm", said, pl.Series(["loud" if n > most else None for n in marks]))
            return counted(stage, rows, {row: {"marks": n} for row, n in enumerate(marks) if n})

        steps = (
            Step("calm", calm, "input", writes="input flags", options=lambda _: {"most": most}),
            Step("key", lambda rows: keep_all("key", rows.with_columns(key="input")), "input", writes="key"),
        )
        rows = records(*({"input": text} | more for text in texts))
        drafts = {Kind.ANSWER: lambda _: Lane(rows)}
        lanes, kept = run(drafts, (), context, row_steps=steps, outcomes=outcomes)
        return lanes[Kind.ANSWER], kept, seen

    return runs


def test_only_new_rows_and_dropped_ones_go_through_the_row_steps_again(passed) -> None:
    texts = ("Why?!!", "What?!!!", "How?!")
    _, outcomes, seen = passed(*texts)
    assert seen == ["rec-0000", "rec-0001", "rec-0002"]
    again, after, seen = passed(*texts, "When?!", outcomes=outcomes)
    assert seen == ["rec-0001", "rec-0003"]
    anew, from_nothing, _ = passed(*texts, "When?!")
    assert again.rows.equals(anew.rows)
    assert after.sort("record_id").equals(from_nothing)
    assert (
        [stage.counts for stage in again.stages] == [{"marks": 7}] == [stage.counts for stage in anew.stages]
    )
    assert again.funnel == anew.funnel
    assert again.stages[0].kept.sort("record_id").equals(anew.stages[0].kept)


@pytest.mark.parametrize(
    "change",
    [{"most": 3}, {"group": "another"}, {"input": "Why? Tell me!"}],
    ids=lambda change: next(iter(change)),
)
def test_another_option_or_text_is_another_outcome_and_an_unread_column_is_not(passed, change) -> None:
    _, outcomes, _ = passed("Why?!!")
    _, after, seen = passed("Why?!!", outcomes=outcomes, **change)
    assert seen == ([] if "group" in change else ["rec-0000"])
    assert after.height == 1


def test_an_option_whose_effect_cannot_be_told_from_its_content_is_refused(passed) -> None:
    with pytest.raises(TypeError, match="object"):
        passed("Why?", most=object())


async def test_outcomes_are_stored_replaced_and_forgotten(tmp_path: Path, passed) -> None:
    cache = OutcomeCache(ObjectStore(str(tmp_path)))
    _, outcomes, _ = passed("Why?", "How?")
    _, fewer, _ = passed("Why?")
    for kept in (outcomes, fewer):
        await cache.write("shop", kept, earlier=no_outcomes())
        assert (await cache.read("shop")).equals(kept)
        assert (await cache.read("shop-2")).is_empty()
        (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes()[:-100])
    assert (await cache.read("shop")).is_empty()
    await cache.write("shop", outcomes, earlier=no_outcomes())
    await cache.forget("shop")
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
