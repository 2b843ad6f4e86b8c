"""``source test`` shows what becomes of records, and ``publish --source`` publishes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli.publishing.items import Found, Kind, Refusal
from tunewheel_cli.publishing.mapped import mapped_source, source_of

SPEC = """
project: desk
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
task: {system_prompt: Answer.}
criteria: [{metric: rouge_l, minimum: 0.1}]
sources:
  - name: crm
    kind: ticket
    each: cases
    where: state == 'closed'
    map: {ticket_id: number, body: text, answer: solution}
"""
CASES = {"cases": [
    {"number": 1, "text": "It is silent.", "solution": "Charge it.", "state": "closed"},
    {"number": 2, "text": "It rings.", "state": "open"},
    {"number": 3, "solution": "Wait.", "state": "closed"},
]}  # fmt: skip
EXPORT = Path(__file__).parents[2] / "contracts/tests/sources/payloads/zendesk_export.json"


@pytest.fixture
def cases(home: Path) -> Path:
    (home / "project.yaml").write_text(SPEC)
    file = home / "cases.json"
    file.write_text(json.dumps(CASES))
    return file


def test_each_record_is_shown_with_its_event_or_its_refusal_and_nothing_is_sent(
    cases: Path, run: Any
) -> None:
    told = json.loads(run("source", "test", str(cases), "--json", code=3).stdout)
    assert told["counts"] == {"event": 1, "refused": 1, "left out": 1}
    first, second, third = told["records"]
    assert (first["result"], first["fields"]["answer"]) == ("ticket.published", "Charge it.")
    assert second["result"] == "left out by where"
    assert (third["result"], list(third["fields"])) == ("refused", ["body"])
    assert (
        "1 events, 1 refused, 1 left out"
        in run("source", "test", str(cases), "--source", "crm", code=3).stdout
    )


def test_a_mapping_that_comes_with_tunewheel_needs_no_spec(home: Path, run: Any) -> None:
    told = json.loads(run("source", "test", str(EXPORT), "--source", "zendesk", "--json").stdout)
    assert [one["fields"]["ticket_id"] for one in told["records"]] == ["35436", "35437"]


def test_one_record_with_a_list_inside_stays_one_record(home: Path, run: Any) -> None:
    file = home / "ticket.json"
    file.write_text(json.dumps(json.loads(EXPORT.read_text("utf-8"))["tickets"][0]))
    told = json.loads(run("source", "test", str(file), "--source", "zendesk", "--json").stdout)
    assert [one["fields"]["body"] for one in told["records"]] == ["The LX-200."]


def test_what_cannot_be_tried_is_said(cases: Path, run: Any) -> None:
    assert "crm" in run("source", "test", str(cases), "--source", "crn", code=2).output
    other = cases.parent / "other.json"
    other.write_text('{"cases": []}')
    assert "becomes an event" in run("source", "test", str(other), code=2).output
    assert "cases.pdf" in run("source", "test", "cases.pdf", code=1).output


def test_a_file_is_published_by_a_source(cases: Path, run: Any) -> None:
    source = mapped_source(cases, source_of("crm", Path("project.yaml")), "desk", None)
    event, refused = source
    assert isinstance(event, Found)
    assert (event.kind, event.fields["ticket_id"], event.fields["answer"]) == (Kind.TICKET, "1", "Charge it.")
    assert isinstance(refused, Refusal)
    assert refused.field == "body"
    assert source.notes == ["left out: 1 records that the source's where leaves out"]
    assert "--source" in run("publish", str(cases), "--source", "crm", "--check", code=2).output
