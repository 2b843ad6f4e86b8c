"""Curation against the key of the bundled example: every planted fault is caught, nothing else is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.spec import parse_spec
from tunewheel_curate.pipeline import Build, build, label_counts
from tunewheel_curate.versions.card import data_card

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "helpdesk"


@pytest.fixture
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


def test_every_planted_fault_is_caught(made: Build) -> None:
    faults: dict[str, list[Any]] = json.loads((EXAMPLE / "faults.json").read_text())
    reason_of = dict(made.lineage.select("source_id", "reason").iter_rows())
    dropped = {source for source, reason in reason_of.items() if reason is not None}

    for kind, reason in (("exact_duplicates", "exact_duplicate"), ("near_duplicates", "near_duplicate")):
        assert len(faults[kind]) >= 6
        missed = [pair for pair in faults[kind] if [reason_of[t] for t in pair].count(reason) != 1]
        assert not missed, kind
    for pair in faults["conflicting_labels"]:
        assert {reason_of[ticket] for ticket in pair} == {"conflicting_label"}, pair
    for fault in faults["broken_outputs"]:
        assert (reason_of[fault["ticket_id"]] or "").startswith(("not_json", "off_schema")), fault
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
    assert set(counts.values()) == {7, 8}
    assert (made.counts.train, made.counts.holdout) == (248, 62)


def test_planted_personal_data_is_gone(made: Build) -> None:
    faults = json.loads((EXAMPLE / "faults.json").read_text())
    both = pl.concat([made.split.train, made.split.holdout])
    text = json.dumps(both["messages"].to_list(), ensure_ascii=False)
    planted = [entity for fault in faults["pii"] for entity in fault["entities"]]
    assert len(planted) >= 15
    assert not [entity for entity in planted if entity["text"] in text]
    assert sum(made.redactions.values()) == len(planted), "redacted more, or less, than was planted"


CAUGHT = {
    "exact_duplicates": "exact_duplicate",
    "near_duplicates": "near_duplicate",
    "conflicting_labels": "conflicting_label",
    "broken_outputs": "off_schema",
    "near_empty": "near_empty",
    "pii": "EMAIL_ADDRESS",
}
"""How the card tells each kind of planted fault."""


def test_the_card_tells_of_every_kind_of_planted_fault(made: Build) -> None:
    spec = parse_spec((EXAMPLE / "project.yaml").read_text())
    faults = json.loads((EXAMPLE / "faults.json").read_text())
    card = data_card("ds-x", spec, made)
    planted = {kind for kind, found in faults.items() if isinstance(found, list)}
    assert planted == set(CAUGHT), "a kind of fault that nobody looks for belongs into the card's limits"
    assert not [kind for kind in planted if CAUGHT[kind] not in card]
    assert "that is well-formed and wrong" in card, "what cannot be caught is listed"
