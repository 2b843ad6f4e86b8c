"""No row of a version holds personal data in clear, by whatever path and in whatever spelling it came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
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
SECRETS = ("jane", "acme.com", "4111", "1111")


def texts_of(made: Build) -> Iterator[str]:
    """Yield every text and every reason that a version would publish."""
    frames = [made.split.train, made.split.holdout, made.lineage, made.quality.review]
    frames += [made.preferences.pairs] if made.preferences else []
    frames += [made.negatives.rows] if made.negatives else []
    for frame in frames:
        yield json.dumps(frame.to_dicts(), default=str, ensure_ascii=False)
    for stage in made.funnel:
        yield stage.model_dump_json()


def found_in(made: Build) -> list[str]:
    return [secret for secret in SECRETS for text in texts_of(made) if secret in text]


def rated_down(text: str) -> dict[str, Any]:
    return {
        "kind": "feedback", "rating": "down", "rated_output": text, "output": None, "trust": "unverified",
        "input": "why does the horn of the seventh boat not sound at night",
    }  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
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
