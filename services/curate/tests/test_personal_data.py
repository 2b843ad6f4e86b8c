"""No row of a version holds personal data in clear, by whatever path and in whatever spelling it came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tunewheel_curate.documents.examples import question_sections
from tunewheel_curate.documents.teaching import Lesson, QuestionAnswer
from tunewheel_curate.inputs import Inputs, Pinned
from tunewheel_curate.pipeline import Build, build

SPELLINGS = {
    "plain": "jane@acme.com",
    "entity": "jane&#64;acme.com",
    "entity that markup keeps": "<b>jane&#64;acme.com</b>",
    "entity of an entity": "jane&amp;#64;acme.com",
    "fullwidth": "jane＠acme.com",  # noqa: RUF001
    "card": "4111\u00a01111\u00a01111\u00a01111",
    "card with hyphens that do not break": "4111\u20111111\u20111111\u20111111",
    "zero width": "ja\u200bne@acme.com",
}
NIGHTLY = pytest.mark.nightly("matrices")
DAILY = ("entity that markup keeps", "card with hyphens that do not break")
"""The spellings that each path is tried with every day; ``redaction`` finds all of them every day."""
EACH = pytest.mark.parametrize(
    "spelling",
    [pytest.param(text, id=name, marks=() if name in DAILY else NIGHTLY) for name, text in SPELLINGS.items()],
)
SECRETS = ("jane", "acme.com", "4111", "1111")


def texts_of(made: Build) -> Iterator[str]:
    """Yield every text and every reason that a version would publish."""
    frames = [made.split.train, made.split.holdout, made.lineage, made.quality.review]
    frames += [] if made.preferences is None else [made.preferences]
    frames += [] if made.negatives is None else [made.negatives]
    for frame in frames:
        yield json.dumps(frame.to_dicts(), default=str, ensure_ascii=False)
    for stage in made.funnel:
        yield stage.model_dump_json()


DOCUMENTS = {"chunks": {"enabled": True}, "questions": {"enabled": True}, "code": {"enabled": True}}


def found_in(made: Build) -> list[str]:
    return [secret for secret in SECRETS for text in texts_of(made) if secret in text]


def rated_down(text: str) -> dict[str, Any]:
    return {
        "kind": "feedback", "rating": "down", "rated_output": text, "output": None, "trust": "unverified",
        "input": "why does the horn of the seventh boat not sound at night",
    }  # fmt: skip


@EACH
@pytest.mark.parametrize("schema", [True, False], ids=["schema", "free text"])
def test_no_spelling_passes_on_any_path(records, spec, varied_rows, spelling: str, schema: bool) -> None:
    told = f"Write to {spelling} about it."
    answer = json.dumps({"category": "bell", "reply": told}, ensure_ascii=False) if schema else told
    history = json.dumps([{"role": r, "content": f"{r}: {told}"} for r in ("user", "assistant")])
    rows = varied_rows(30)
    rows += [
        {"title": told, "input": f"the lantern question {told}", "output": answer, "history": history},
        {"input": "what does the tide table of the harbour say", "output": json.dumps({"category": "bell"}),
         "rejected_output": answer, "trust": "corrected", "group": "customer-1"},
        {"input": "the lantern conflicts with another one", "output": answer},
        {"input": "the lantern conflicts with another one", "output": answer.replace("bell", "horn")},
        {"input": "an answer off the schema", "output": answer.replace("bell", "gong")},
        {"input": f"does the lantern of the mail have a frame?\n\nBest regards,\n{spelling}"},
        rated_down(answer),
    ]  # fmt: skip
    wanted = spec(ratings=True)
    if not schema:
        task = wanted.task.model_copy(update={"output_schema": None, "label_field": None})
        wanted = wanted.model_copy(update={"task": task})
    made = build(records(*rows), wanted)
    assert not made.rejections
    assert made.counts.preferences == 1
    assert made.counts.negatives == 1
    assert sum(made.redactions.values()) >= 6
    assert found_in(made) == []
    assert made.lineage["cut"].str.contains("Best regards").any()


@EACH
def test_no_spelling_passes_out_of_a_document(records, spec, varied_rows, spelling: str) -> None:
    told = f"Whoever loses a locker key writes to {spelling} within two weeks."
    code = f'def ring(times):\n    """{told}"""\n    for _ in range(times):\n        push({spelling!r})'
    sections = [
        {"path": ["Lockers", f"How to reach {spelling}"], "text": told},
        {
            "path": ["Lockers"],
            "kind": "code",
            "language": "python",
            "name": "ring",
            "text": code,
            "summary": told,
        },
    ]
    document = {"kind": "document", "title": f"Of {spelling}", "input": told, "output": None,
                "sections": json.dumps(sections)}  # fmt: skip
    made = build(records(*varied_rows(20), document), spec(formats={"documents": DOCUMENTS}))
    assert not made.rejections
    assert {*made.split.train["format"]} >= {"chunk", "question", "code_summary", "code_function"}
    assert found_in(made) == []


@EACH
def test_what_a_teacher_spells_out_is_redacted(records, spec, varied_rows, spelling: str) -> None:
    text = "The front desk counts all the locker keys before noon, and it says so on Tuesdays."
    document = {"kind": "document", "output": None, "title": "Lockers",
                "sections": json.dumps([{"path": ["Lockers"], "text": text}])}  # fmt: skip
    teacher = {"base_url": "http://localhost:9/v1", "model": "some/teacher", "min_grounding": 0.0}
    questions = {"enabled": True, "method": "teacher", "teacher": teacher}
    wanted = spec(formats={"documents": {"questions": questions}})
    frame = records(*varied_rows(20), document)
    ((key, _),) = question_sections(frame.filter(frame["kind"] == "document"), wanted).items()
    pair = QuestionAnswer(question=f"Who is {spelling}, please?", answer="The front desk counts the keys.")
    pinned = Pinned(lessons={key: Lesson(pairs=(pair,))})
    made = build(frame, wanted, Inputs(pinned=pinned))
    assert not made.rejections
    (asked,) = made.split.train.filter(made.split.train["format"] == "question")["messages"].to_list()
    assert asked[1]["content"].startswith("Who is ")
    assert found_in(made) == []


def test_keys_and_numbers_are_redacted_and_the_answer_still_fits_its_schema(
    records, spec, varied_rows
) -> None:
    task = spec().task
    by_address = {"type": "object", "additionalProperties": {"type": "integer"}}
    phone = {"type": "integer", "minimum": 1_000_000}
    schema = task.output_schema | {"properties": {**task.output_schema["properties"], "by": by_address,
                                                  "phone": {"type": "integer"}, "strict": phone,
                                                  "desk@acme.org": {"type": "string"}}}  # fmt: skip
    wanted = spec().model_copy(update={"task": task.model_copy(update={"output_schema": schema})})
    fine = {"category": "bell", "by": {"jane@acme.com": 1, "jane.d@acme.com": 4111111111111111},
            "phone": 491701234567, "desk@acme.org": "open"}  # fmt: skip
    refused = {"category": "bell", "strict": 4111111111111111}
    rows = [
        {
            "input": "who wrote to the front desk of the harbour",
            "output": json.dumps(fine),
            "record_id": "rec-a",
        },
        {
            "input": "which number has the lighthouse by now",
            "output": json.dumps(refused),
            "record_id": "rec-b",
        },
    ]
    made = build(records(*varied_rows(30), *rows), wanted)
    assert found_in(made) == []
    answers = [
        turns[-1]["content"] for turns in [*made.split.train["messages"], *made.split.holdout["messages"]]
    ]
    (answer,) = [json.loads(text) for text in answers if "by" in text]
    assert answer == {"category": "bell", "by": {"<EMAIL_ADDRESS>": 0, "<EMAIL_ADDRESS> 2": 1}, "phone": 0,
                      "desk@acme.org": "open"}  # fmt: skip
    fate = dict(made.lineage.select("record_id", "reason").iter_rows())
    assert (fate["rec-a"], fate["rec-b"]) == (None, "off_schema: strict minimum")
