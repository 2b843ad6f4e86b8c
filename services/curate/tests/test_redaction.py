from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.spec import PiiPolicy
from tunewheel_curate.recognizers import ENTITIES, recognizers_of
from tunewheel_curate.redaction import find_entities, redact_records, redact_text

DEFAULT = PiiPolicy().entities

FLOORS = {
    "EMAIL_ADDRESS": (0.98, 0.98),
    "PHONE_NUMBER": (0.88, 0.84),
    "CREDIT_CARD": (0.98, 0.98),
    "IBAN_CODE": (0.95, 0.95),
    "IP_ADDRESS": (0.98, 0.98),
    "US_SSN": (0.98, 0.98),
}
"""Precision and recall that the recognisers must reach on presidio's own synthetic texts."""


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Write to a.b@example.com or c@example.org", "Write to <EMAIL_ADDRESS> or <EMAIL_ADDRESS>"),
        ("Card 4111 1111 1111 1111, please", "Card <CREDIT_CARD>, please"),
        ("Pay to DE89 3704 0044 0532 0130 00.", "Pay to <IBAN_CODE>."),
        ("pay gb82west12345698765432", "pay <IBAN_CODE>"),
        ("Call me: +44 20 7946 0321!", "Call me: <PHONE_NUMBER>!"),
        ("ring 60-56-85-91 tonight", "ring <PHONE_NUMBER> tonight"),
        ("from 203.0.113.77 it works", "from <IP_ADDRESS> it works"),
        ("VAT no. 448 2231 09, order 20931, 2026-03-01", "VAT no. 448 2231 09, order 20931, 2026-03-01"),
        ("Serial H24-1302 costs 1,200.50", "Serial H24-1302 costs 1,200.50"),
        ("call by 2026-03-01 at the latest", "call by 2026-03-01 at the latest"),
    ],
)
def test_personal_data_is_replaced_and_the_rest_left(text: str, clean: str) -> None:
    assert redact_text(text, DEFAULT) == clean
    assert redact_text(clean, DEFAULT) == clean


def test_only_the_asked_for_entities_are_replaced() -> None:
    assert (
        redact_text("a@example.com from 203.0.113.77", ("IP_ADDRESS",)) == "a@example.com from <IP_ADDRESS>"
    )


def test_strings_inside_json_outputs_are_redacted(records) -> None:
    output = json.dumps({"category": "bell", "reply": 'Mail to a@example.com "now"'})
    stage = redact_records(
        records({"output": output, "title": "b@example.com"}, {"output": None}), PiiPolicy()
    )
    first = stage.kept.row(0, named=True)
    assert json.loads(first["output"])["reply"] == 'Mail to <EMAIL_ADDRESS> "now"'
    assert first["title"] == "<EMAIL_ADDRESS>"
    assert stage.counts == {"EMAIL_ADDRESS": 2}


def test_a_project_may_reject_or_keep(records) -> None:
    frame = records({"input": "a@example.com"}, {})
    assert redact_records(frame, PiiPolicy(action="reject")).funnel.reasons == {"pii": 1}
    assert redact_records(frame, PiiPolicy(action="keep")).kept.equals(frame)


def test_an_unknown_entity_is_refused_with_the_choice(records) -> None:
    with pytest.raises(InvalidSpec, match=r"dataset\.pii\.entities.*PERSON.*EMAIL_ADDRESS"):
        redact_records(records({}), PiiPolicy(entities=("PERSON",)))


@pytest.mark.parametrize("entity", sorted(ENTITIES))
def test_every_entity_has_recognisers(entity: str) -> None:
    assert recognizers_of(entity)


def test_precision_and_recall_on_synthetic_texts(shared_data: Path, record_property) -> None:
    texts = json.loads((shared_data / "pii_presidio/data/synth_dataset_v2.json").read_text(encoding="utf-8"))
    hits: Counter[str] = Counter()
    false: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    for text in texts:
        spans = [(s["entity_type"], s["start_position"], s["end_position"]) for s in text["spans"]]
        found = [(f.entity, f.start, f.end) for f in find_entities(text["full_text"], DEFAULT)]
        for entity, start, end in spans:
            gold[entity] += 1
            hits[entity] += any(e == entity and s < end and start < x for e, s, x in found)
        for entity, start, end in found:
            false[entity] += not any(e == entity and s < end and start < x for e, s, x in spans)
    assert len(texts) == 1500
    for entity, (precision, recall) in FLOORS.items():
        assert gold[entity] >= 10
        reached = hits[entity] / (hits[entity] + false[entity]), hits[entity] / gold[entity]
        print(f"{entity}: precision {reached[0]:.3f}, recall {reached[1]:.3f} of {gold[entity]}")
        record_property(entity, reached)
        assert reached[0] >= precision, entity
        assert reached[1] >= recall, entity
