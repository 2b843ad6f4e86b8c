from __future__ import annotations

import random
from io import BytesIO

import polars as pl
import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.holdout.memory import (
    RETIRED_SKETCH,
    REWORDED,
    SKETCH,
    ComparedRecords,
    HoldoutMemory,
    Seen,
    clusters_of,
)
from tunewheel_curate.stage import dropped_frame

NAMES = Pseudonyms("shop", "a secret of the installation")


def with_keys(records, *rows: dict[str, object]) -> pl.DataFrame:
    return records(*rows).with_columns(pl.col("input").alias("key"))


def compared(records, *rows: dict[str, object]) -> ComparedRecords:
    return ComparedRecords(with_keys(records, *rows))


def test_a_question_a_source_and_a_group_are_known_again(records) -> None:
    held = compared(records, {"input": "q", "source_id": "T-1", "group": "g"})
    memory = HoldoutMemory().extended(held.marks([["rec-0000"]]))

    def seen(**row: object) -> Seen:
        base = {"input": "other", "source_id": "other", "group": "other"}
        (marks,) = compared(records, base | row).marks([["rec-0000"]])
        return memory.seen(marks)

    assert seen() is Seen.NEVER
    assert seen(input="q") is seen(source_id="T-1") is Seen.EXAMPLE
    assert seen(group="g") is Seen.GROUP
    assert seen(source_id="T-1", kind="example") is Seen.NEVER
    assert memory.holds_question("q")
    assert not memory.holds_question("other")


def test_a_group_that_trained_is_known_again_unless_something_of_it_was_held_out(records) -> None:
    both = compared(records, {"input": "q", "group": "g"}, {"input": "r", "group": "h"})
    one, other = both.marks([["rec-0000"], ["rec-0001"]])
    memory = HoldoutMemory().extended([], both.trained([["rec-0000"]]))
    assert (memory.seen(one), memory.seen(other)) == (Seen.TRAINED, Seen.NEVER)
    assert not memory.holds_question("q"), "what trained was not held out"
    assert memory.extended([one]).seen(one) is Seen.EXAMPLE


def test_duplicates_leave_their_marks_with_the_one_that_stayed(records) -> None:
    frame = with_keys(records, {"input": "a"}, {"input": "b"}, {"input": "c"})
    gave_way = dropped_frame(
        pl.Series(["rec-0000", "rec-0001"]), pl.Series(["x", "y"]), pl.Series(["rec-0001", "rec-0002"])
    )
    assert clusters_of(gave_way) == {"rec-0002": ["rec-0000", "rec-0001"]}
    memory = HoldoutMemory().extended(ComparedRecords(frame, gave_way).marks([["rec-0002"]]))
    assert all(memory.holds_question(question) for question in "abc")
    assert len(memory.marks) == 9


def test_the_memory_is_the_same_bytes_in_any_order_and_holds_no_words(records) -> None:
    rows = [{"input": f"secret {n}", "group": f"person {n}"} for n in range(5)]
    marks = compared(records, *rows).marks([[f"rec-{n:04}"] for n in range(5)])
    files: list[bytes] = []
    for order in (marks, marks[::-1]):
        buffer = BytesIO()
        HoldoutMemory().extended(order).to_frame().write_parquet(buffer)
        files.append(buffer.getvalue())
    assert files[0] == files[1]
    assert b"secret" not in files[0]
    assert b"person" not in files[0]
    again = HoldoutMemory.read(files[0], Pseudonyms("shop"))
    assert again.marks == HoldoutMemory().extended(marks).marks


def written(memory: HoldoutMemory) -> bytes:
    buffer = BytesIO()
    memory.to_frame().write_parquet(buffer)
    return buffer.getvalue()


def test_a_secret_keys_old_marks_and_what_was_held_out_stays_known(records) -> None:
    both = compared(records, {"input": "q", "group": "jane@acme.com"}, {"input": "r", "group": "h"})
    one, other = both.marks([["rec-0000"], ["rec-0001"]])
    old = HoldoutMemory().extended([one], other.trained)
    keyed = HoldoutMemory.read(written(old), NAMES)
    assert keyed.marks == {NAMES.mark(mark) for mark in old.marks}
    assert keyed.marks == HoldoutMemory(names=NAMES).extended([one], other.trained).marks
    assert (keyed.seen(one), keyed.seen(other)) == (Seen.EXAMPLE, Seen.TRAINED)
    assert keyed.holds_question("q")
    assert not keyed.holds_question("r")
    again = HoldoutMemory.read(written(keyed.extended([other])), NAMES)
    assert (again.seen(one), again.seen(other)) == (Seen.EXAMPLE, Seen.EXAMPLE)


def test_without_the_secret_nobody_can_ask_a_memory_about_a_customer(records) -> None:
    (guess,) = compared(records, {"input": "q", "group": "jane@acme.com"}).marks([["rec-0000"]])
    kept = HoldoutMemory(names=NAMES).extended([guess], guess.trained).to_frame()["mark"]
    assert set(kept).isdisjoint(guess.own | guess.group | guess.trained)
    assert set(kept).isdisjoint(map(Pseudonyms("shop").mark, guess.own | guess.group | guess.trained))


@pytest.mark.parametrize("names", [Pseudonyms("shop", "another secret"), Pseudonyms("shop")])
def test_marks_of_another_secret_are_refused_rather_than_forgotten(names: Pseudonyms) -> None:
    kept = written(HoldoutMemory({"0" * 32}, NAMES))
    with pytest.raises(InvalidSpec, match="TUNEWHEEL_PSEUDONYM_SECRET: is not the one"):
        HoldoutMemory.read(kept, names)


def around(text: str, words: list[str], rng: random.Random) -> str:
    before = rng.choice([0, 1, 2])
    return " ".join([*rng.sample(words, before), text, *rng.sample(words, 2 - before)])


@pytest.mark.parametrize("prefix", [SKETCH, RETIRED_SKETCH])
def test_a_question_of_any_length_is_known_again_with_two_words_more_and_others_are_not(
    prefix: str,
) -> None:
    rng = random.Random(11)
    words = [f"word{number}" for number in range(300)]
    asked = [" ".join(rng.sample(words, size)) for size in range(2, 12) for _ in range(60)]
    memory = HoldoutMemory(names=NAMES).sketched(pl.Series(asked), prefix=prefix)
    more = pl.Series([f"{around(text, words, rng)}?" for text in asked])
    assert (memory.likeness(more, prefix=prefix) >= REWORDED).all()
    # Others of the same words, and those that hold some of a question's words, are other questions.
    others = [" ".join(rng.sample(words, size)) for size in range(2, 12) for _ in range(60)]
    others += [f"{text.split()[0]} {rng.choice(words)}" for text in asked]
    assert (memory.likeness(pl.Series(others), prefix=prefix) >= REWORDED).sum() <= 6
    assert (HoldoutMemory(names=NAMES).likeness(more, prefix=prefix) == 0).all()


def test_a_short_question_is_known_by_its_words_in_order() -> None:
    memory = HoldoutMemory(names=NAMES).sketched(pl.Series(["lost card?", "refund", "reset my password"]))
    asked = {
        "hello again: lost card": True, "lost card, please help": True, "so, reset my password now": True,
        "card lost": False, "lost card in paris last monday": False, "reset password": False,
        "refund please": False, "refund": True,
    }  # fmt: skip
    found = memory.likeness(pl.Series(list(asked))) >= REWORDED
    assert dict(zip(asked, found.to_list(), strict=True)) == asked
    other = HoldoutMemory(memory.marks, Pseudonyms("shop", "another secret of the tests"))
    assert not (other.likeness(pl.Series(["hello again: lost card"])) >= REWORDED).any()
