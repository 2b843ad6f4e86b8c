"""Nearly equal inputs are one example where their answers say the same, and several where they do not."""

from __future__ import annotations

import json
import random

import polars as pl
import pytest
from tunewheel_curate.duplicates.answers import answered_alike
from tunewheel_curate.duplicates.questions import ANSWERED_OTHERWISE
from tunewheel_curate.pipeline import build
from tunewheel_curate.similarity.pairs import SimilarPair

ASKED = "My Heron shows error {} on its display since this morning and will not start, what shall I do now?"
CODES = {
    "E01": "The brake lever is pressed; let go of it and start again.",
    "E02": "Dry the contacts of the battery with a cloth.",
    "E03": "The motor is too hot. Wait for half an hour in the shade.",
    "E04": "Bring it to a workshop: the torque sensor is broken.",
    "E05": "Update the app and pair the display anew.",
}
WORDS = "open close valve pump filter slowly turn press check wait after before left right"
LONG = "Thank you. Open the app, choose your bike, and hold the green button for {} seconds until it rings."


def free_text(spec):
    task = spec().task.model_copy(update={"output_schema": None, "label_field": None})
    return spec().model_copy(update={"task": task})


def alike(records, task, one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Tell whether two records (input, output) that ask nearly the same count as answered alike."""
    frame = records(*({"input": asked, "output": said} for asked, said in (one, other))).with_columns(
        pl.col("input").str.to_lowercase().alias("key"), pl.lit(None, dtype=pl.String).alias("label")
    )
    return len(answered_alike(frame, [SimilarPair(0, 1, 0.9)], task)) == 1


def test_an_error_code_with_an_answer_of_its_own_is_kept(records, varied_rows, spec) -> None:
    tickets = [{"input": ASKED.format(code), "output": answer} for code, answer in CODES.items()]
    made = build(records(*varied_rows(20), *tickets), free_text(spec))
    kept = {turns[-1]["content"] for turns in pl.concat([made.split.train, made.split.holdout])["messages"]}
    assert set(CODES.values()) <= kept
    same = [ticket | {"output": CODES["E01"]} for ticket in tickets]
    repeated = build(records(*varied_rows(20), *same), free_text(spec))
    assert repeated.counts.examples == 21


def test_an_answer_stays_if_one_word_of_it_differs(records, spec) -> None:
    rng, rows = random.Random(11), []
    for number in range(60):
        asked = f"{' '.join(rng.choices(WORDS.split(), k=16))} {number}, I ask for model"
        answer = rng.choices(WORDS.split(), k=40)
        place = rng.randrange(40)
        other = [*answer[:place], *rng.choice(([], ["never", answer[place]], ["blue"])), *answer[place + 1 :]]
        rows += [
            {"input": f"{asked} {model}?", "output": " ".join(said)}
            for model, said in (("Alpha", answer), ("Beta", other), ("Gamma", answer))
        ]
    made = build(records(*rows), free_text(spec))
    kept = {turns[-1]["content"] for turns in pl.concat([made.split.train, made.split.holdout])["messages"]}
    assert kept == {row["output"] for row in rows}
    assert made.counts.examples == 120
    assert made.figures["near_duplicates"] == {ANSWERED_OTHERWISE: 60}


def test_an_answer_in_a_structured_output_is_kept_too(records, varied_rows, spec) -> None:
    tickets = [
        {"input": ASKED.format(code), "output": json.dumps({"category": "bell", "reply": answer})}
        for code, answer in CODES.items()
    ]
    made = build(records(*varied_rows(20), *tickets), spec())
    assert made.counts.examples == 25
    assert {stage.stage: stage.left for stage in made.funnel}["near_duplicates"] == 25


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (LONG.format(5), LONG.format(5).upper(), True),
        (LONG.format(5), LONG.format(5).replace(". Open", " - open").replace(" - ", ".  "), True),
        (LONG.format(5), LONG.format(5).replace("choose", "never choose"), False),
        (LONG.format(5), LONG.format(5).replace("green", "red"), False),
        ("Stellen Sie es auf -5 °C. Danke!", "stellen sie es auf 5 °C, danke", False),
        ("水漏れは補償します。", "水漏れは補償しません。", False),
        ("水漏れは補償します。", "水漏れは補償します", True),
        (LONG.format(5), LONG.format(50), False),
        (LONG.format(5), CODES["E01"], False),
    ],
)
def test_answers_say_the_same_only_if_no_word_and_no_figure_differs(records, spec, one, other, same) -> None:
    task = free_text(spec).task
    assert alike(records, task, (ASKED.format("E01"), one), (ASKED.format("E02"), other)) is same


def test_a_figure_that_the_answer_takes_over_from_its_question_says_nothing(records, spec) -> None:
    task, told = free_text(spec).task, f"Error {{}}. {LONG.format('some')}"
    pairs = [(ASKED.format(code), told.format(code)) for code in ("E01", "E02")]
    assert alike(records, task, *pairs)
    assert not alike(records, task, pairs[0], (pairs[1][0], told.format("E09")))
    which = f"Is it 30 or 50 seconds? {ASKED}"
    chosen = [(which.format(code), LONG.format(seconds)) for code, seconds in (("E01", 30), ("E02", 50))]
    assert not alike(records, task, *chosen)


def test_what_is_no_free_text_must_be_equal(records, spec) -> None:
    schema = {
        "properties": {
            "steps": {"type": "array", "items": {"type": "string"}},
            "priority": {"enum": ["low", "high"]},
        }
    }
    task = spec().task.model_copy(update={"output_schema": schema, "label_field": None})

    def said(priority: str, *steps: str) -> tuple[str, str]:
        return ASKED.format("E01"), json.dumps({"steps": steps, "priority": priority})

    assert alike(records, task, said("low", LONG.format(5)), said("low", LONG.format(5).lower()))
    assert not alike(records, task, said("low", LONG.format(5)), said("high", LONG.format(5)))


def test_a_flood_is_settled_by_answer_though_only_some_of_it_were_compared(records, spec) -> None:
    answers = ["Restart it.", "Call the workshop.", "Restart it.", "Call the workshop.", "Charge it."]
    frame = records(*({"output": answer} for answer in answers)).with_columns(
        pl.format("k{}", pl.int_range(5)).alias("key"), pl.lit(None, dtype=pl.String).alias("label")
    )
    compared = [SimilarPair(4, other, 0.9) for other in range(4)]  # the pivot is answered unlike all others
    found = answered_alike(frame, compared, free_text(spec).task)
    assert {(pair.first, pair.second) for pair in found} == {(0, 2), (1, 3)}
    assert not len(answered_alike(frame, [], free_text(spec).task))
