"""Over any sequence of versions: what was held out once is never trained on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from io import BytesIO

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY, HoldoutMemory
from tunewheel_curate.holdout.splitting import Split
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.versions.card import data_card
from tunewheel_testing.shingles import shingles

SMALL = {"min_examples": 2, "comfortable_examples": 10}


def questions(frame: pl.DataFrame) -> set[str]:
    return {messages[1]["content"] for messages in frame["messages"].to_list()}


def similarities(trained: set[str], held: set[str]) -> Iterator[float]:
    """Yield the Jaccard similarity of the word pairs of every two, one from each side."""
    ours, theirs = ([shingles(text) for text in side] for side in (trained, held))
    for one, other in itertools.product(ours, theirs):
        yield len(one & other) / len(one | other)


NAMES = Pseudonyms("shop", "a secret of the installation")


def row(question: int, variant: int, group: int, source: int, trust: str) -> dict[str, object]:
    """Variants of a question are near-duplicates of each other; questions share no two words in a row."""
    words = [f"w{question}x{word}" for word in range(24)]
    words[variant] = f"variant{variant}"
    return {
        "record_id": f"rec-{question}-{variant}-{group}-{source}-{trust}",
        "source_id": f"T-{source}",
        "input": " ".join(words),
        "output": json.dumps({"category": ("bell", "horn")[question % 2]}),
        "group": f"g{group}",
        "trust": trust,
    }


ROWS = st.builds(
    row,
    question=st.integers(0, 30),
    variant=st.integers(0, 3),
    group=st.integers(0, 12),
    source=st.integers(0, 60),
    trust=st.sampled_from(["unverified", "expert"]),
)
VERSION = st.tuples(st.lists(ROWS, max_size=14), st.sampled_from([0.05, 0.2, 0.5]), st.booleans())


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=st.lists(ROWS, min_size=8, max_size=30), versions=st.lists(VERSION, min_size=1, max_size=5))
def test_nothing_held_out_is_ever_trained_on(first, versions, records, spec) -> None:
    known: list[dict[str, object]] = []
    inputs_before = Inputs(memory=HoldoutMemory(names=NAMES))
    ever: set[str] = set()
    for added, fraction, forget in [(first, 0.2, False), *versions]:
        known = [*known[len(known) // 3 if forget else 0 :], *added]  # what is forgotten was withdrawn
        made = build(records(*known), spec(holdout_fraction=fraction, **SMALL), inputs_before)
        trained, held = questions(made.split.train), questions(made.split.holdout)
        assert not trained & ever
        assert not trained & held
        assert max(similarities(trained, held), default=0) < LEAK_SIMILARITY
        assert not set(made.split.train["group"]) & set(made.split.holdout["group"])
        ever |= held
        inputs_before = Inputs(memory=made.memory)


def test_a_better_duplicate_from_elsewhere_takes_the_place_on_the_same_side(records, spec) -> None:
    old = [row(q, 0, q, q, "unverified") for q in range(40)]
    first = build(records(*old), spec(**SMALL))
    held = {ids[0] for ids in first.split.holdout["record_ids"].to_list()}
    assert len(held) >= 3
    better = [row(q, 1, 100 + q, 100 + q, "expert") for q in range(40)]
    second = build(records(*old, *better), spec(**SMALL), Inputs(memory=first.memory))
    held_now = {int(ids[0].split("-")[1]) for ids in second.split.holdout["record_ids"].to_list()}
    assert {int(name.split("-")[1]) for name in held} <= held_now
    # And when the record that was held out is gone, its successor still stands for it.
    third = build(records(*better), spec(**SMALL), Inputs(memory=second.memory))
    trained = {int(ids[0].split("-")[1]) for ids in third.split.train["record_ids"].to_list()}
    assert not {int(name.split("-")[1]) for name in held} & trained


def test_a_new_version_moves_nobody_and_takes_its_part_of_what_is_new(records, spec) -> None:
    rows = [row(q, 0, q, q, "expert") for q in range(120)]
    inputs_before, trained, held = Inputs(), set(), set()
    for count in (40, 60, 61, 120):
        made = build(records(*rows[:count]), spec(holdout_fraction=0.2, **SMALL), inputs_before)
        assert trained <= questions(made.split.train)
        assert held <= questions(made.split.holdout)
        trained, held = questions(made.split.train), questions(made.split.holdout)
        assert len(held) == round(count * 0.2)
        inputs_before = Inputs(memory=made.memory)
    labels = made.split.holdout["label"].value_counts()
    assert dict(labels.iter_rows()) == {"bell": 12, "horn": 12}


def test_a_newer_version_of_a_held_out_source_is_not_trained_on(records, spec) -> None:
    old = [row(q, 0, q, q, "expert") for q in range(40)]
    first = build(records(*old), spec(**SMALL))
    sources = {int(ids[0].split("-")[4]) for ids in first.split.holdout["record_ids"].to_list()}
    rewritten = [row(q + 100, 0, q + 100, q, "expert") | {"occurred_at": None} for q in range(40)]
    second = build(records(*rewritten), spec(**SMALL), Inputs(memory=first.memory))
    trained = {int(ids[0].split("-")[4]) for ids in second.split.train["record_ids"].to_list()}
    assert sources
    assert not sources & trained


def test_what_is_on_neither_side_stands_in_funnel_and_lineage(records, spec) -> None:
    held = [row(q, 0, q, q, "expert") for q in range(20)]
    first = build(records(*held), spec(holdout_fraction=0.1, **SMALL))
    one = first.split.holdout["record_ids"].to_list()[0][0]
    question, source = int(one.split("-")[1]), int(one.split("-")[4])
    big = [row(q, 0, 999, q, "expert") for q in range(200, 230)]
    swallowed = row(question, 0, 999, source, "expert")
    others = [r for r in held if r["record_id"] != one]
    made = build(
        records(*others, *big, swallowed), spec(holdout_fraction=0.1, **SMALL), Inputs(memory=first.memory)
    )
    split = next(stage for stage in made.funnel if stage.stage == "split")
    assert split.reasons == {"held_out_before": 1}
    assert split.left == made.counts.examples == made.counts.train + made.counts.holdout
    lost = made.lineage.filter(pl.col("stage") == "split").row(0, named=True)
    assert (lost["record_id"], lost["reason"], lost["example_id"]) == (
        swallowed["record_id"], "held_out_before", None,
    )  # fmt: skip


def test_the_same_versions_in_the_same_order_give_the_same_memory(records, spec) -> None:
    rows = [row(q, 0, q, q, "expert") for q in range(40)]

    def turns() -> frozenset[str]:
        first = build(records(*rows[:25]), spec(**SMALL))
        return build(records(*reversed(rows)), spec(**SMALL), Inputs(memory=first.memory)).memory.marks

    assert turns() == turns()


@pytest.mark.parametrize(("count", "preliminary"), [(8, True), (30, False)])
def test_a_small_version_is_preliminary_and_says_why(count: int, preliminary: bool, records, spec) -> None:
    made = build(records(*(row(q, 0, q, q, "expert") for q in range(count))), spec(**SMALL))
    assert made.rejections == ()
    assert (made.preliminary is not None) is preliminary
    if preliminary:
        assert (made.preliminary or "").startswith("dataset.comfortable_examples: 8 clean examples where 10")


def test_what_is_withdrawn_is_in_no_example(records, spec) -> None:
    from datetime import UTC, datetime

    from tunewheel_contracts.withdrawals import Withdrawal

    until = datetime(2027, 1, 1, tzinfo=UTC)
    rows = [row(q, 0, q, q, "expert") for q in range(20)]
    text = "Oil the bell of a bicycle once every year, before winter comes."
    document = {"kind": "document", "source_id": "sop.md", "output": None, "input": text}
    passages = spec(formats={"documents": {"chunks": {"enabled": True}}}, **SMALL)
    before = build(records(*rows, document), passages)
    assert text in str(before.split.train["messages"].to_list())
    made = build(records(*rows, document), passages, Inputs((Withdrawal(document_id="sop.md", until=until),)))
    assert text not in str(pl.concat([made.split.train, made.split.holdout])["messages"].to_list())
    assert made.funnel[0].stage == "withdrawal"
    assert made.funnel[0].reasons == {"withdrawn": 1}
    fate = made.lineage.filter(pl.col("source_id") == "sop.md").row(0, named=True)
    assert (fate["example_id"], fate["stage"], fate["reason"]) == (None, "withdrawal", "withdrawn")
    assert made.counts.records == 21


def retire(memory: HoldoutMemory, split: Split, count: int) -> tuple[HoldoutMemory, set[str]]:
    rows = [ChatExample.model_validate(row) for row in split.holdout.head(count).iter_rows(named=True)]
    return memory.retiring((), rows), {name for row in rows for name in row.record_ids}


def used(made: Build) -> set[str]:
    split = made.split
    return {name for rows in (split.train, split.holdout) for ids in rows["record_ids"] for name in ids}


def test_a_retired_row_is_never_held_out_nor_trained_on_again(records, spec) -> None:
    known = [row(number, 0, number % 20, number, "expert") for number in range(40)]
    wanted = spec(holdout_fraction=0.2, **SMALL)
    first = build(records(*known), wanted)
    memory, worn = retire(first.memory, first.split, 3)
    newer = [row(number, 0, number, number, "expert") for number in range(40, 80)]
    made = build(records(*known, *newer), wanted, Inputs(memory=memory))
    assert not worn & used(made)
    told = made.lineage.filter(made.lineage["reason"] == "holdout_retired")
    assert set(told["record_id"]) == worn
    assert made.split.holdout.height >= 14
    stay = {name for ids in first.split.holdout["record_ids"] for name in ids} - worn
    assert stay <= {name for ids in made.split.holdout["record_ids"] for name in ids}
    # and in every version after it, with nobody saying so again
    again = build(records(*known, *newer), wanted, Inputs(memory=made.memory))
    assert not worn & used(again)


@pytest.mark.parametrize("trust", ["expert", "corrected"])
def test_a_retired_question_rests_also_with_another_answer_by_another_customer(trust, records, spec) -> None:
    known = [row(number, 0, number, number, "expert") for number in range(40)]
    wanted = spec(holdout_fraction=0.2, **SMALL)
    first = build(records(*known), wanted)
    memory, worn = retire(first.memory, first.split, 1)
    newer = [row(n, 0, n, n, "expert") for n in range(40, 60)]
    others = [one for one in known if one["record_id"] not in worn]
    (old,) = (one for one in known if one["record_id"] in worn)
    other = json.dumps({"category": "horn" if "bell" in str(old["output"]) else "bell"})
    new = {"record_id": "rec-new", "group": "new", "source_id": "new", "trust": trust, "output": other}
    made = build(records(*others, *newer, old | new), wanted, Inputs(memory=memory))
    told = made.lineage.filter(made.lineage["reason"] == "holdout_retired")
    assert told["record_id"].to_list() == ["rec-new"]


def of_trust(trust: str, numbers: range) -> list[dict[str, object]]:
    return [row(number, 0, number, number, trust) for number in numbers]


def test_only_experts_answers_are_held_out_and_the_rest_trains(records, spec) -> None:
    rows = [*of_trust("expert", range(30)), *of_trust("corrected", range(30, 330))]
    made = build(records(*rows, *of_trust("unverified", range(330, 360))), spec(**SMALL))
    assert set(made.split.holdout["trust"]) == {"expert"}
    assert made.split.holdout.height >= 4
    assert made.counts.examples == 360
    assert "Caution" not in data_card("ds-1", spec(**SMALL), made)


def test_a_version_without_an_expert_holds_out_unverified_answers_and_says_so(records, spec) -> None:
    rows = [*of_trust("unverified", range(40)), *of_trust("corrected", range(40, 80))]
    made = build(records(*rows), spec(**SMALL))
    held = made.split.holdout
    assert set(held["trust"]) == {"unverified"}
    assert f"{held.height} of the {held.height} held-out answers" in data_card("ds-1", spec(**SMALL), made)

    # Once there are experts, they are the measure, and what was held out before still trains nowhere.
    experts = of_trust("expert", range(80, 120))
    then = build(records(*rows, *experts), spec(**SMALL), Inputs(memory=made.memory))
    assert set(then.split.holdout["trust"]) == {"expert"}
    assert questions(held).isdisjoint(questions(then.split.train))
    reasons = {stage.stage: stage.reasons for stage in then.funnel}["split"]
    assert reasons == {"unverified": held.height}


def test_what_was_held_out_stays_where_nothing_better_is_left(records, spec) -> None:
    unverified, experts = of_trust("unverified", range(40)), of_trust("expert", range(40, 60))
    first = build(records(*unverified), spec(**SMALL))
    asked = spec(**SMALL, holdout_trust=["unverified"])
    trained = build(records(*unverified, *experts), asked, Inputs(memory=first.memory))
    assert set(trained.split.holdout["trust"]) == {"unverified"}
    rest = [one for one in experts if one["group"] in set(trained.split.train["group"])]
    last = build(records(*unverified, *rest), spec(**SMALL), Inputs(memory=trained.memory))
    assert questions(last.split.holdout) == questions(trained.split.holdout)


def test_corrections_are_held_out_only_if_the_spec_says_so(records, spec) -> None:
    rows = records(*of_trust("corrected", range(40)))
    refused = build(rows, spec(**SMALL))
    assert refused.rejections[0].startswith("dataset.holdout_trust: ")
    wanted = spec(**SMALL, holdout_trust=["expert", "corrected"])
    assert set(build(rows, wanted).split.holdout["trust"]) == {"corrected"}


def moved(old: dict[str, object], **changed: object) -> dict[str, object]:
    """Return the ticket under the ids and the customer of another system, with two words more."""
    new = {name: f"new-{old[name]}" for name in ("record_id", "source_id", "group")}
    return old | new | {"input": f"Ticket: {old['input']} thanks"} | changed


def keyed(records, spec, rows: list[dict[str, object]]) -> Build:
    return build(records(*rows), spec(**SMALL), Inputs(memory=HoldoutMemory(names=NAMES)))


def numbers(frame: pl.DataFrame) -> set[int]:
    return {int(name.removeprefix("new-").split("-")[1]) for ids in frame["record_ids"] for name in ids}


def test_what_was_held_out_stays_held_out_under_new_ids_customers_and_words(records, spec) -> None:
    old = [row(q, 0, q, q, "expert") for q in range(60)]
    first = keyed(records, spec, old)
    assert first.split.holdout.height >= 8
    memory = HoldoutMemory.read(written(first.memory), NAMES)
    made = build(records(*map(moved, old)), spec(**SMALL), Inputs(memory=memory))
    assert numbers(made.split.holdout) == numbers(first.split.holdout)
    assert made.counts.examples == 60
    assert {stage.stage: stage.reasons for stage in made.funnel}["split"] == {}


def test_a_memory_without_a_secret_or_of_an_earlier_release_goes_on_without_rewordings(records, spec) -> None:
    old = [row(q, 0, q, q, "expert") for q in range(60)]
    first = build(records(*old), spec(**SMALL))
    assert not any(mark.startswith("sketch") for mark in first.memory.marks)
    memory = HoldoutMemory.read(written(first.memory), NAMES)
    second = build(records(*old), spec(**SMALL), Inputs(memory=memory))
    assert questions(second.split.holdout) == questions(first.split.holdout)
    # From the next version on, rewordings of the rows that are still held out are recognised.
    third = build(records(*map(moved, old)), spec(**SMALL), Inputs(memory=second.memory))
    assert numbers(third.split.holdout) == numbers(first.split.holdout)


def test_a_rewording_by_a_customer_with_much_else_is_on_neither_side_and_the_rest_trains(
    records, spec
) -> None:
    old = [row(q, 0, q, q, "expert") for q in range(60)]
    first = keyed(records, spec, old)
    held = min(numbers(first.split.holdout))
    other = [row(q, 0, 999, q, "expert") for q in range(200, 206)]
    rest = [one for one in old if one["source_id"] != f"T-{held}"]
    newcomer = moved(old[held], group="g999")
    made = build(records(*rest, *other, newcomer), spec(**SMALL), Inputs(memory=first.memory))
    assert held not in numbers(made.split.train) | numbers(made.split.holdout)
    fate = made.lineage.filter(pl.col("record_id") == newcomer["record_id"]).row(0, named=True)
    assert (fate["stage"], fate["reason"]) == ("split", "held_out_before")
    assert {*range(200, 206)} <= numbers(made.split.train) | numbers(made.split.holdout)


def test_a_rewording_of_a_retired_question_rests_too_and_its_neighbours_stay(records, spec) -> None:
    old = [row(q, 0, q, q, "expert") for q in range(60)]
    first = keyed(records, spec, old)
    memory, worn = retire(first.memory, first.split, 1)
    (tired,) = (int(name.split("-")[1]) for name in worn)
    made = build(records(*map(moved, old)), spec(**SMALL), Inputs(memory=memory))
    assert numbers(made.split.holdout) >= numbers(first.split.holdout) - {tired}
    assert tired not in numbers(made.split.holdout) | numbers(made.split.train)


def written(memory: HoldoutMemory) -> bytes:
    memory.to_frame().write_parquet(buffer := BytesIO())
    return buffer.getvalue()


def test_a_document_that_rewords_a_question_which_was_held_out_does_not_train(records, spec) -> None:
    rows = [row(q, 0, q, q, "expert") for q in range(40)]
    first = keyed(records, spec, rows)
    held = rows[min(numbers(first.split.holdout))]
    text = f"# Pumps\n\nOil the bell once every year, before winter comes.\n\n{held['input']} today please."
    document = {"kind": "document", "source_id": "sop.md", "output": None, "input": text}
    passages = spec(formats={"documents": {"chunks": {"enabled": True}}}, **SMALL)
    rest = [one for one in rows if one is not held]
    made = build(records(*rest, document), passages, Inputs(memory=first.memory))
    assert str(held["input"]) not in str(made.split.train["messages"].to_list())
