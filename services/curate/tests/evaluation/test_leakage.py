"""No training conversation holds a held-out question, and the quality report says what was taken out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.quality_report import BenchmarkOverlap
from tunewheel_curate.evaluation.leakage import (
    HELD_OUT,
    MOST_HOLDERS,
    _in_earlier_turns,
    find_answers,
    find_leaks,
    questions_of,
    said_in,
)
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.replay.mixing import ReplayPool
from tunewheel_curate.versions.card import data_card
from tunewheel_curate.versions.versioning import write_version

THINGS = ("saddle", "lamp", "display", "charger", "lock", "motor", "pedal", "mudguard", "stand", "bell")


def question(number: int) -> str:
    return f"how long may the {THINGS[number % 10]} of model {number} stay wet"


def rows(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "input": question(number),
            "output": json.dumps({"category": ("bell", "horn")[number % 2], "reply": f"For {number} days."}),
            "attributes": "{}",
        }
        | more
        for number in range(count)
    ]


def told(made: Build) -> BenchmarkOverlap:
    (overlap,) = [one for one in made.quality.contamination if one.benchmark == HELD_OUT]
    return overlap


def held_out(made: Build) -> list[str]:
    return [turns[-2]["content"] for turns in made.split.holdout["messages"].to_list()]


def trained(made: Build) -> str:
    return "\n".join(turn["content"] for turns in made.split.train["messages"].to_list() for turn in turns)


@pytest.fixture
def plain(records, spec) -> Build:
    made = build(records(*rows(60)), spec(near_duplicate_threshold=1.0))
    assert len(held_out(made)) >= 6
    assert (told(made).items, told(made).overlapping_items, told(made).dropped) == (len(held_out(made)), 0, 0)
    return made


def test_a_faq_passage_with_held_out_questions_does_not_train(plain, records, spec) -> None:
    """Its user's turn only says which section to quote; questions and answers stand in the assistant's."""
    asked = held_out(plain)[:6]
    faq = "\n\n".join(f"**{text.capitalize()}?** For as long as you like." for text in asked)
    sections = [
        {"path": ["FAQ"], "text": faq},
        {"path": ["Care"], "text": "Dry every part with a soft cloth after each ride in the rain."},
    ]
    document = {"kind": "document", "output": None, "title": "Water", "sections": json.dumps(sections)}
    passages = {"documents": {"chunks": {"enabled": True}}}
    made = build(records(*rows(60), document), spec(near_duplicate_threshold=1.0, formats=passages))
    assert held_out(made) == held_out(plain)
    assert not [text for text in asked if text in trained(made).lower()]
    assert "soft cloth" in trained(made)
    assert (told(made).overlapping_items, told(made).dropped, told(made).train) == (6, 1, 0)
    stage = next(stage for stage in made.funnel if stage.stage == "documents.contamination")
    assert stage.reasons == {"contaminated: held-out questions": 1}


@pytest.mark.parametrize(
    "leak",
    [
        lambda text: {"input": f"I ride in any weather. Tell me, {text}? And who mends it if it breaks?"},
        lambda text: {
            "input": "who knows",
            "output": json.dumps({"category": "bell", "reply": f"You ask:\n{text}!"}),
        },
        lambda text: {
            "input": "And when it snows in the hills above town?",
            "history": json.dumps([{"role": "user", "content": f"Dear all, {text}, I would like to know?"}]),
        },
    ],
    ids=["a longer question", "an answer", "an earlier turn"],
)
def test_an_example_that_holds_a_held_out_question_does_not_train(plain, records, spec, leak) -> None:
    text = held_out(plain)[0]
    made = build(
        records(*rows(60), leak(text) | {"record_id": "rec-leak"}),
        spec(near_duplicate_threshold=1.0),
        Inputs(memory=plain.memory),
    )
    assert text in held_out(made)
    assert text not in trained(made)
    assert (told(made).overlapping_items, told(made).dropped) == (1, 1)
    fate = made.lineage.filter(pl.col("record_id") == "rec-leak").row(0, named=True)
    assert (fate["stage"], fate["reason"]) == ("contamination", "contaminated: held-out questions")


def test_a_held_out_question_that_many_ask_in_longer_words_leaves_the_holdout(plain, records, spec) -> None:
    text = held_out(plain)[0]
    many = [
        {"input": f"{text} when x{n} y{n} z{n} a{n} b{n} c{n} d{n} e{n}"} for n in range(2 * MOST_HOLDERS)
    ]
    made = build(records(*rows(60), *many), spec(near_duplicate_threshold=1.0), Inputs(memory=plain.memory))
    assert text not in held_out(made)
    reasons = made.funnel[-1].reasons
    assert reasons["too_common"] == 1
    assert made.counts.train > 40 + MOST_HOLDERS
    assert made.counts.examples == made.counts.train + made.counts.holdout


def test_a_short_follow_up_is_looked_for_with_what_led_to_it(plain) -> None:
    asked = [{"role": "user", "content": "Is it in stock?"}, {"role": "assistant", "content": "Yes, in red."}]
    for last, alone in (("Thank you very much", False), ("And how long would it take to the hills?", True)):
        assert questions_of([*asked, {"role": "user", "content": last}, asked[1]]) == [
            f"Is it in stock?\n\nYes, in red.\n\n{last}", *([last] if alone else []),
        ]  # fmt: skip


def test_an_earlier_turn_is_compared_by_similarity_too(plain) -> None:
    text = held_out(plain)[0]
    turns = [
        {"role": "user", "content": text.replace("may", "can")},
        {"role": "assistant", "content": "A day."},
        {"role": "user", "content": "Thanks."},
        {"role": "assistant", "content": "You are welcome."},
    ]
    train = pl.DataFrame({"messages": [turns]}, schema={"messages": plain.split.train.schema["messages"]})
    assert find_leaks(said_in(train), plain.split.holdout[:1]).train == {0}


@pytest.mark.parametrize("threads", [MOST_HOLDERS, 2 * MOST_HOLDERS])
def test_a_greeting_of_many_threads_costs_no_more_than_one_of_too_many(plain, threads: int) -> None:
    text = held_out(plain)[0]
    greeting = {"role": "user", "content": text.replace("may", "can")}
    turns = [greeting, greeting, {"role": "user", "content": "Thanks."}]
    train = said_in(pl.DataFrame({"messages": [turns] * threads}))
    leaks = find_leaks(train, plain.split.holdout[:1])
    is_common = threads > MOST_HOLDERS
    assert (leaks.train, leaks.holdout) == (frozenset() if is_common else frozenset(range(threads)),
                                            frozenset({0} if is_common else ()))  # fmt: skip
    owners, _ = _in_earlier_turns(train, pl.Series([text]))
    assert owners == list(range(min(threads, MOST_HOLDERS + 1)))


def test_general_data_that_holds_a_held_out_question_is_not_replayed(plain, records, spec) -> None:
    text = held_out(plain)[0]
    pool = [
        [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        for asked, answer in (("Write a FAQ.", f"Q: {text}? A: For a day."), ("Name a colour.", "Blue."))
    ]
    asked = spec(near_duplicate_threshold=1.0, replay={"source": "general.jsonl", "share": 0.1})
    made = build(records(*rows(60)), asked, Inputs(replay=ReplayPool(tuple(pool), sha256="0" * 64)))
    assert made.replayed is not None
    assert made.replayed.use.reasons == {"contaminated: held-out questions": 1}
    assert made.counts.replay == 1


def test_a_pair_of_a_duplicate_that_holds_a_held_out_question_does_not_train(plain, records, spec) -> None:
    text, answer = held_out(plain)[0], json.dumps({"category": "bell"})
    long = " ".join(f"w{number}" for number in range(60))
    kept = {"input": long, "output": answer, "record_id": "rec-kept", "group": "one"}
    gone = kept | {
        "input": f"{long} {text}", "record_id": "rec-gone", "source_id": "T-gone",
        "trust": "corrected", "rejected_output": json.dumps({"category": "horn"}),
    }  # fmt: skip
    made = build(records(*rows(60), kept, gone), spec(), Inputs(memory=plain.memory))
    fate = made.lineage.filter(pl.col("record_id") == "rec-gone").row(0, named=True)
    assert (fate["reason"], fate["duplicate_of"]) == ("near_duplicate", "rec-kept")
    assert made.preferences is not None
    assert made.preferences.is_empty()
    assert {stage.stage: stage.reasons for stage in made.funnel}["preferences"] == {
        "contaminated: held-out questions": 1
    }
    longer = gone | {"input": f"{long} and nothing else at all"}
    assert (
        build(records(*rows(60), kept, longer), spec(), Inputs(memory=plain.memory)).counts.preferences == 1
    )


def test_an_answer_to_avoid_is_not_about_a_held_out_question(plain, records, spec) -> None:
    text = held_out(plain)[0]
    history = json.dumps(
        [{"role": "user", "content": f"Hello, {text}?"}, {"role": "assistant", "content": "A day."}]
    )
    thumb = {
        "kind": "feedback", "output": None, "input": "And if it freezes over night?", "history": history,
        "rating": "down", "rated_output": json.dumps({"category": "bell"}),
    }  # fmt: skip
    made = build(records(*rows(60), thumb), spec(near_duplicate_threshold=1.0, ratings=True))
    assert text in held_out(made)
    assert made.negatives is not None
    assert made.negatives.is_empty()
    assert {stage.stage: stage.reasons for stage in made.funnel}["negatives"] == {
        "contaminated: held-out questions": 1
    }


def advice(number: int) -> str:
    return " ".join(f"dry{number}oil{word}" for word in range(16)) + "."


def advised(number: int) -> dict[str, Any]:
    answer = {"category": ("bell", "horn")[number % 2], "reply": advice(number)}
    return {"input": f"{question(number)} before it rusts for good?", "output": json.dumps(answer)}


def test_held_out_answers_that_a_document_holds_are_counted_and_marked(records, spec, tmp_path: Path) -> None:
    wanted = spec(formats={"documents": {"chunks": {"enabled": True}}}, contamination={"action": "report"})
    answered = [advised(number) for number in range(40)]
    first = build(records(*answered), wanted)
    assert first.counts.answers_in_training == 0
    held = [turns[-1]["content"] for turns in first.split.holdout["messages"].to_list()]
    told = [json.loads(answer)["reply"] for answer in held[:3]]
    manual = {
        "kind": "document",
        "source_id": "sop.md",
        "output": None,
        "input": "# Care\n\n" + "\n\n".join(told),
    }
    made = build(records(*answered, manual), wanted)
    assert made.counts.answers_in_training == 3
    assert made.split.train.height == first.split.train.height + 1
    assert "3 of " in data_card("ds-1", wanted, made).split("## Answers")[1]
    write_version(made, wanted, tmp_path)
    rows = [
        ChatExample.model_validate(row) for row in pl.read_parquet(tmp_path / "holdout.parquet").to_dicts()
    ]
    assert sum(row.answer_in_training or False for row in rows) == 3
    assert {row.answer_in_training for row in rows} == {True, False}
    assert "answer_in_training" not in pl.read_parquet(tmp_path / "train.parquet").columns


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("The saddle of model seven dries for three days in a warm room, then you oil it.", True),
        ("The saddle of model seven dries for THREE days, in a warm room; then you oil it!", True),
        ('{"category": "bell", "reply": "Dry."}', None),
        ("Three days.", None),
        ('["The lamp of model nine must never become wet, so call us at once if it did."]', False),
        ("[" * 100_000 + " the lamp of model nine must never become wet so call us at once", False),
    ],
)
def test_an_answer_of_few_words_is_not_looked_for_and_marks_do_not_hide_one(
    answer: str, found: bool | None
) -> None:
    train = "Care: the saddle of model seven dries for three days in a warm room, then you oil it. Call us."
    rows = pl.DataFrame(
        {
            "record_id": ["a", "b"],
            "side": ["holdout", "train"],
            "messages": [[{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]] * 2,
        }
    )
    said = pl.DataFrame({"messages": [[{"role": "assistant", "content": train}]]})
    assert find_answers(rows, train=said).kept["answer_in_training"].to_list() == [found, None]
