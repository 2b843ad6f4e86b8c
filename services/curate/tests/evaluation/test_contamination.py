from __future__ import annotations

import csv
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_curate.cleaning.normalization import comparison_key, normalize_text
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, regression_benchmark
from tunewheel_curate.evaluation.contamination import Search, drop_contaminated, find_overlaps
from tunewheel_curate.evaluation.leakage import HELD_OUT
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA, asked_text
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import build
from tunewheel_curate.similarity.near_index import empty_index, grow

LONG = "a ship left the harbour at noon with ninety crates of oranges and came back with eleven"

QUOTED = "we heard that " + " ".join(LONG.split()[:13]) + " more was said of it that day by all of them"


def keys(*texts: str) -> pl.Series:
    return pl.Series([comparison_key(text) for text in texts], dtype=pl.String)


def overlaps(
    texts: tuple[str, ...], items: tuple[str, ...], known: bool = False
) -> list[tuple[int, int, str]]:
    index = grow(empty_index(), keys(*texts))[0] if known else empty_index()
    return find_overlaps(keys(*texts), keys(*items), words=8, threshold=0.8, index=index).rows()


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(
    ("text", "item", "how"),
    [
        ("Where IS my card?!", "where is my card", "same"),
        (f"Please help: {LONG}. Thanks a lot in advance for all of it", LONG, "run"),
        ("one two three four five six seven", "one two three four five six seven eight", "near"),
        ("where is my card now and why", "where is my card", None),
        ("?!", "...", None),
        ("", "", None),
    ],
)
def test_same_run_near_or_nothing(text: str, item: str, how: str | None, known: bool) -> None:
    found = overlaps(("nothing of the kind is said here", text, text), ("another item", item), known)
    assert found == ([] if how is None else [(1, 1, how), (2, 1, how)])


@settings(max_examples=40)
@given(st.lists(st.lists(st.sampled_from("abc"), max_size=24).map(" ".join), min_size=2), st.integers(5, 8))
def test_no_run_is_missed(texts: list[str], words: int) -> None:
    """Of so few words texts hold many runs, at every place."""
    half = len(texts) // 2
    said, items = texts[:half], texts[half:]
    found = find_overlaps(keys(*said), keys(*items), words=words, threshold=1.0, index=empty_index())
    runs = [_runs_of(text, words) for text in texts]
    for place, text in enumerate(said):
        for number, item in enumerate(items):
            together = found.filter((pl.col("text") == place) & (pl.col("item") == number))["how"].to_list()
            if text != item and runs[place] & runs[half + number]:
                assert together == ["run"]
            assert ("run" in together) <= bool(runs[place] & runs[half + number])


def _runs_of(text: str, words: int) -> set[str]:
    said = text.split()
    return {" ".join(said[at : at + words]) for at in range(len(said) - words + 1)}


def example(number: int, text: str, answer: str = "Nobody knows.") -> dict[str, object]:
    messages = [("system", LONG), ("user", text), ("assistant", answer)]
    return {
        "example_id": f"ex-{number}", "messages": [{"role": r, "content": c} for r, c in messages],
        "group": f"g{number}", "trust": "expert", "record_ids": [f"rec-{number}"], "format": "answer",
    }  # fmt: skip


def searched(*benchmarks: BenchmarkTexts) -> Search:
    return Search(benchmarks, words=13, threshold=0.8)


def rows(*examples: dict[str, object], held: int = 0) -> pl.DataFrame:
    """Return rows of examples, of which the last ``held`` are held out."""
    frame = pl.DataFrame(examples, schema=EXAMPLE_SCHEMA)
    sides = ["train"] * (len(examples) - held) + ["holdout"] * held
    return frame.with_columns(pl.Series("side", sides), pl.col("record_ids").list.first().alias("record_id"))


@pytest.fixture
def split() -> pl.DataFrame:
    texts = (LONG, "a clean one", QUOTED, "clean too")
    return rows(*(example(number, text) for number, text in enumerate(texts)), held=2)


@pytest.mark.parametrize("drops", [True, False])
def test_only_rows_that_would_train_are_dropped_and_every_overlap_is_counted(split, drops: bool) -> None:
    stage = drop_contaminated(split, search=searched(BenchmarkTexts("mine", (LONG, "unused"))), drops=drops)
    gone = ["rec-0"] if drops else []
    assert stage.kept.equals(split.filter(~pl.col("record_id").is_in(gone)))
    assert stage.funnel.reasons == ({"contaminated: mine": 1} if drops else {})
    assert stage.funnel.entered == 4
    (overlap,) = [overlap.report for overlap in stage.overlaps]
    assert (overlap.items, overlap.overlapping_items) == (2, 1)
    assert (overlap.dropped, overlap.train, overlap.holdout) == ((1, 0, 1) if drops else (0, 1, 1))


def test_without_a_benchmark_every_row_stays(split) -> None:
    held = split.filter(pl.col("side") == "holdout")
    stage = drop_contaminated(split, search=searched(), holdout=held)
    assert stage.kept.equals(split)
    (overlap,) = [overlap.report for overlap in stage.overlaps]
    assert (overlap.benchmark, overlap.items, overlap.overlapping_items) == (HELD_OUT, 2, 0)


def test_an_answer_that_holds_a_benchmark_is_found() -> None:
    frame, search = (
        rows(example(0, "a clean one", f"Well: {LONG}.")),
        searched(BenchmarkTexts("mine", (LONG,))),
    )
    assert drop_contaminated(frame, search=search).kept.is_empty()
    assert search.reasons(frame) == {0: "contaminated: mine"}


def test_a_build_drops_what_gives_the_regression_set_away(records, spec, varied_rows) -> None:
    regression = regression_benchmark(None)
    leaks = [{"input": f"Quick one. {regression.texts[0]}"}, {"input": regression.texts[5].upper()}]
    made = build(records(*varied_rows(60), *leaks), spec(), Inputs(benchmarks=(regression,)))
    overlap, held = made.quality.contamination
    assert (held.benchmark, held.overlapping_items) == (HELD_OUT, 0)
    assert overlap.dropped + overlap.holdout == overlap.overlapping_items == 2
    stage = made.funnel[-1]
    assert (stage.stage, stage.entered - stage.left) == ("contamination", overlap.dropped)
    assert made.counts.examples == made.counts.train + made.counts.holdout == 62 - overlap.dropped
    dropped = made.lineage.filter(pl.col("stage") == "contamination")
    assert dropped.height == overlap.dropped
    assert dropped["example_id"].null_count() == dropped.height


def test_every_test_text_of_banking77_in_its_train_file_is_found(shared_data: Path) -> None:
    """25 test texts occur in the train file, word for word; 7 of them to the letter."""
    queries = {
        name: list(csv.DictReader((shared_data / f"banking77/{name}.csv").open(encoding="utf-8")))
        for name in ("train", "test")
    }
    train = [comparison_key(normalize_text(row["text"])) for row in queries["train"]]
    test = [comparison_key(normalize_text(row["text"])) for row in queries["test"]]
    index = grow(empty_index(), pl.Series(train).unique())[0]
    found = find_overlaps(pl.Series(train), pl.Series(test), words=8, threshold=0.8, index=index)
    held = {key: " ".join("".join(c if c.isalnum() else " " for c in key).split()) for key in {*train, *test}}
    known = {held[key] for key in train}
    planted = {position for position, key in enumerate(test) if held[key] in known}
    assert len(planted) == 25
    assert planted <= set(found.filter(pl.col("how") == "same")["item"].to_list())
    assert found["item"].n_unique() >= 25
    print(dict(found.group_by("how").agg(pl.col("item").n_unique()).iter_rows()))


def test_titles_are_read_with_their_texts() -> None:
    assert overlaps((asked_text("one two three four", "five six seven eight nine", None),),
                    ("one two three four five six seven eight nine",)) == [(0, 0, "same")]  # fmt: skip
