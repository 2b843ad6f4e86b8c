"""The mappings that come with Tunewheel read what each system sends, as its documentation shows it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from tunewheel_contracts.formats.source_spec import BuiltIn, SourceSpec
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.sources.envelopes import Message
from tunewheel_contracts.sources.mapping import mapped

PAYLOADS = Path(__file__).parent / "payloads"


def events(payload: str, **source: Any) -> list[dict[str, Any]]:
    """Return the events of a recorded payload without fields that have their defaults; none is refused."""
    spec = SourceSpec(name="own", use=payload.partition("_")[0], **source)
    record = json.loads((PAYLOADS / f"{payload}.json").read_text(encoding="utf-8"))
    found = [*mapped(spec, "helpdesk", Message(record), at_door)]
    assert not [one.refusal for one in found if one.refusal]
    return [
        one.event.model_dump(exclude_defaults=True) | {"type": one.event.type} for one in found if one.event
    ]


def test_every_mapping_has_a_recorded_payload() -> None:
    recorded = {path.name.partition("_")[0] for path in PAYLOADS.iterdir()}
    assert recorded == set(get_args(BuiltIn))


def test_a_zendesk_export_gives_the_last_question_its_public_answer_and_what_was_said_before() -> None:
    solved, waiting = events("zendesk_export")
    assert solved["ticket_id"] == "35436"
    assert (solved["body"], solved["answer"]) == ("The LX-200.", "Pull the plug, then open the rear door.")
    assert [turn["content"] for turn in solved["thread"]] == [
        "The smoke is very colorful.",
        "Which model is it?",
    ]
    assert (solved["customer"], solved["channel"], solved["validated_by"]) == ("20978392", "email", "235323")
    assert solved["attributes"] == {"priority": "high", "tags": "enterprise printer"}
    assert waiting["body"] == "Where is my parcel?"
    assert "answer" not in waiting
    assert "attributes" not in waiting


def test_zendesk_events_answer_a_ticket_and_withdraw_it() -> None:
    (answered,) = events("zendesk_event")
    assert (answered["body"], answered["answer"]) == ("My parcel is late.", "It arrives tomorrow.")
    assert answered["created_at"] == datetime(2026, 1, 4, 12, 31, 4, tzinfo=UTC)
    (withdrawn,) = events("zendesk_deleted")
    assert (withdrawn["type"], withdrawn["document_id"]) == ("document.withdrawn", answered["ticket_id"])
    assert withdrawn["kind"] == "ticket"


@pytest.mark.parametrize(
    ("payload", "at"),
    [
        ("zendesk_event", "2026-03-25T05:09:27+00:00"),
        ("jira_event", "2026-02-19T10:32:08.152000+00:00"),
        ("github_comment", "2026-05-15T15:20:21+00:00"),
        ("zendesk_deleted", None),
        ("zendesk_export", None),
        ("github_issues", None),
        ("servicenow_table", None),
    ],
)
def test_the_version_of_a_webhook_is_as_old_as_its_vendor_says(payload: str, at: str | None) -> None:
    spec = SourceSpec(name="own", use=payload.partition("_")[0])
    record = json.loads((PAYLOADS / f"{payload}.json").read_text(encoding="utf-8"))
    found = [*mapped(spec, "helpdesk", Message(record), at_door)]
    assert {one.changed_at and one.changed_at.isoformat() for one in found} == {at}


def test_a_deleted_servicenow_incident_is_withdrawn() -> None:
    (withdrawn,) = events("servicenow_deleted")
    assert (withdrawn["kind"], withdrawn["document_id"]) == ("ticket", "INC0000017")


def test_a_private_note_is_no_answer() -> None:
    payload = json.loads((PAYLOADS / "zendesk_event.json").read_text(encoding="utf-8"))
    payload["event"]["comment"]["is_public"] = False
    (left_out,) = mapped(SourceSpec(name="own", use="zendesk"), "p", Message(payload), at_door)
    assert (left_out.event, left_out.refusal) == (None, None)


def test_a_jira_issue_is_read_from_the_search_and_from_the_webhook() -> None:
    (found,) = events("jira_search")
    assert (found["body"], found["answer"]) == (
        "The VPN drops every hour.\nClient 5.1",
        "Set the rekey time to eight hours.",
    )
    assert found["created_at"] == datetime(2026, 2, 19, 10, 32, 8, 152000, tzinfo=UTC)
    (told,) = events("jira_event")
    assert (told["ticket_id"], told["answer"]) == ("JRA-20002", "Turn the cache on.")


def test_a_servicenow_incident_is_answered_by_its_close_notes() -> None:
    (found,) = events("servicenow_table")
    assert (found["ticket_id"], found["customer"]) == ("INC0000017", "5137153cc6")
    assert found["answer"] == "Showed the user the context menu."
    assert found["created_at"] == datetime(2026, 8, 11, 23, 10, 6, tzinfo=UTC)


def test_github_issues_are_answered_by_those_who_maintain() -> None:
    (told,) = events("github_comment")
    assert (told["ticket_id"], told["answer"]) == ("octo-org/hello-world#2", "You are right. Fixed in 1.2.")
    (listed,) = events("github_issues")
    assert (listed["ticket_id"], listed["answer"]) == ("issue#7", "Delete the lock file.")
    assert listed["attributes"] == {"labels": "crash"}


def test_a_confluence_page_is_a_document_and_a_trashed_page_withdraws_it() -> None:
    (page,) = events("confluence_pages")
    (withdrawn,) = events("confluence_trashed")
    assert page["document_id"] == withdrawn["document_id"] == "confluence/3604482"
    assert (page["type"], withdrawn["type"]) == ("document.published", "document.withdrawn")
    assert page["attributes"] == {"space": "OPS"}


def test_traces_become_examples() -> None:
    first, second = events("langfuse_observations")  # the span between them is left out
    assert (first["input"], first["output"]) == ("Is the shop open on Sunday?", "No, it opens on Monday.")
    assert (second["input"], second["output"], second["group"]) == ("And at night?", "It is closed.", "u-8")
    (logged,) = events("litellm_log")
    assert (logged["input"], logged["output"]) == ("Until when?", "Within 30 days.")
    assert [turn["content"] for turn in logged["messages"]] == ["Can I return shoes?", "Yes."]
    (stored,) = events("openai_stored")
    assert (stored["input"], stored["output"]) == ("Write a haiku about circuits.", "Mind of circuits hum")
    assert stored["group"] == "u-3"


@pytest.mark.parametrize("payload", sorted(path.stem for path in PAYLOADS.iterdir()))
def test_a_payload_with_other_types_is_refused_or_left_out_and_never_raises(payload: str) -> None:
    spec = SourceSpec(name="own", use=payload.partition("_")[0])
    record = json.loads((PAYLOADS / f"{payload}.json").read_text(encoding="utf-8"))
    for wrong in (None, 7, "text", [], {}, [[{}]]):
        assert [*mapped(spec, "p", Message(_with_leaves(record, wrong)), at_door)]


def _with_leaves(value: Any, leaf: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_leaves(one, leaf) for name, one in value.items()}
    return [_with_leaves(one, leaf) for one in value] if isinstance(value, list) else leaf
