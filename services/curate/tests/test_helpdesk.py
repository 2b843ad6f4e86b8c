"""Curation against the key of the bundled example: every planted fault is caught, nothing else is lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.spec import parse_spec
from tunewheel_curate.pipeline import Build, build, label_counts
from tunewheel_curate.versions.card import data_card

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "helpdesk"
BROKEN = {
    "plain sentence instead of JSON": "not_json",
    "chatter before the JSON": "not_json",
    "JSON string without its closing brace": "not_json",
    "trailing comma": "not_json",
    "single quotes, a Python literal instead of JSON": "not_json",
    "category outside the enum": "off_schema: category enum",
    "priority outside the enum": "off_schema: priority enum",
    "priority is missing": "off_schema: (root) required",
    "reply is missing": "off_schema: (root) required",
    "reply is empty": "off_schema: reply minLength",
}
"""By what is wrong with an answer, the reason that drops it."""


@pytest.fixture(scope="module")
def faults() -> dict[str, list[Any]]:
    return json.loads((EXAMPLE / "faults.json").read_text())


@pytest.fixture(scope="module")
def made(records) -> Build:
    tickets = [json.loads(line) for line in (EXAMPLE / "tickets.jsonl").read_text().splitlines()]
    rows = [
        {
            "project": "helpdesk",
            "record_id": ticket["ticket_id"].lower(),
            "source_id": ticket["ticket_id"],
            "title": ticket["subject"],
            "input": ticket["body"],
            "output": a if isinstance(a := ticket["answer"], str) else json.dumps(a),
            "group": ticket["customer"],
        }
        for ticket in tickets
    ]
    return build(records(*rows), parse_spec((EXAMPLE / "project.yaml").read_text()))


def test_every_planted_fault_is_caught(made: Build, faults: dict[str, list[Any]]) -> None:
    reason_of = dict(made.lineage.select("source_id", "reason").iter_rows())
    dropped = {source for source, reason in reason_of.items() if reason is not None}

    for kind, reason in (("exact_duplicates", "exact_duplicate"), ("near_duplicates", "near_duplicate")):
        assert len(faults[kind]) >= 6
        missed = [pair for pair in faults[kind] if [reason_of[t] for t in pair].count(reason) != 1]
        assert not missed, kind
    for pair in faults["conflicting_labels"]:
        assert {reason_of[ticket] for ticket in pair} == {"conflicting_label"}, pair
    assert {fault["why"] for fault in faults["broken_outputs"]} == set(BROKEN)
    for fault in faults["broken_outputs"]:
        assert reason_of[fault["ticket_id"]] == BROKEN[fault["why"]], fault
    assert {reason_of[ticket] for ticket in faults["near_empty"]} == {"near_empty"}

    planted = {t for kind in ("exact_duplicates", "near_duplicates", "conflicting_labels") for pair in
               faults[kind] for t in pair}  # fmt: skip
    planted |= {f["ticket_id"] for f in faults["broken_outputs"]} | set(faults["near_empty"])
    assert dropped <= planted, "something that was not planted was dropped"
    assert made.rejections == ()
    assert made.counts.examples >= 280


def test_every_category_has_its_share_of_the_holdout(made: Build) -> None:
    counts = label_counts(made.split.holdout)
    assert len(counts) == 8
    assert set(counts.values()) == {8, 9}
    assert (made.counts.train, made.counts.holdout) == (258, 65)


def test_planted_personal_data_is_gone(made: Build, faults: dict[str, list[Any]]) -> None:
    both = pl.concat([made.split.train, made.split.holdout])
    text = json.dumps(both["messages"].to_list(), ensure_ascii=False)
    planted = [entity for fault in faults["pii"] for entity in fault["entities"]]
    assert len(planted) >= 15
    assert not [entity for entity in planted if entity["text"] in text]
    found = dict(made.redactions)
    assert found.pop("PERSON", 0) <= 2, "one question names a person, twice"
    assert sum(found.values()) == len(planted), "redacted more, or less, than was planted"


def told_by_card(faults: dict[str, list[Any]]) -> dict[str, list[str]]:
    """By kind of planted fault, what the card says of all of them."""
    entities = Counter(entity["type"] for fault in faults["pii"] for entity in fault["entities"])
    broken = Counter(BROKEN[fault["why"]] for fault in faults["broken_outputs"])
    return {
        "exact_duplicates": [f"exact_duplicate: {len(faults['exact_duplicates'])}"],
        "near_duplicates": [f"near_duplicate: {len(faults['near_duplicates'])}"],
        "conflicting_labels": [
            f"conflicting_label: {2 * len(faults['conflicting_labels'])}",
            f"- {2 * len(faults['conflicting_labels'])} records ask the same question as another",
        ],
        "broken_outputs": [f"{reason}: {count}" for reason, count in broken.items()],
        "near_empty": [f"near_empty: {len(faults['near_empty'])}"],
        "pii": [f"{entity}: {count}" for entity, count in entities.items()],
    }


def test_the_card_counts_every_planted_fault(made: Build, faults: dict[str, list[Any]]) -> None:
    card = data_card("ds-x", parse_spec((EXAMPLE / "project.yaml").read_text()), made)
    told = told_by_card(faults)
    planted = {kind for kind, found in faults.items() if isinstance(found, list)}
    assert planted == set(told), "a kind of fault that nobody looks for belongs into the card's limits"
    assert not [(kind, said) for kind, all_said in told.items() for said in all_said if said not in card]
    assert "that is well-formed and wrong" in card, "what cannot be caught is listed"


def test_the_lineage_names_the_twin_that_stayed(made: Build, faults: dict[str, list[Any]]) -> None:
    fates = {row["source_id"]: row for row in made.lineage.to_dicts()}
    record = {source: fate["record_id"] for source, fate in fates.items()}
    for kind in ("exact_duplicates", "near_duplicates"):
        for pair in faults[kind]:
            (gone,) = [ticket for ticket in pair if fates[ticket]["reason"] is not None]
            (stayed,) = [ticket for ticket in pair if ticket != gone]
            assert fates[gone]["duplicate_of"] == record[stayed]
            assert fates[stayed]["example_id"] is not None
