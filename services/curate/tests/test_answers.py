from __future__ import annotations

import json

import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_curate.pipeline import build

HALF = '{"category": "bell", "reply": "mail a@example.com \\ud83d"}'
"""An emoji that was cut in two, in an answer that came as text: JSON itself can say it, UTF-8 cannot."""
DEEP = "[" * 480 + "]" * 480
BELL = json.dumps({"category": "bell"})


@pytest.mark.parametrize("text", [HALF, DEEP])
@pytest.mark.parametrize(
    "row",
    [
        lambda text: {"output": text},
        lambda text: {"output": BELL, "rejected_output": text},
        lambda text: {"kind": "feedback", "output": None, "rating": "down", "rated_output": text},
        lambda text: {"kind": "feedback", "output": None, "rating": "up", "rated_output": text},
    ],
    ids=["answer", "rejected", "rated down", "rated up"],
)
@pytest.mark.parametrize("free", [False, True], ids=["schema", "free text"])
def test_no_answer_ends_a_build(records, spec, varied_rows, row, text: str, free: bool) -> None:
    known = spec(ratings=True)
    rules = [{"rule": "pattern", "field": "reply", "pattern": "^mail"}]
    told = known.task.model_dump() | {"output_rules": rules} | ({"output_schema": None} if free else {})
    known = known.model_copy(update={"task": TaskSpec.model_validate(told)})
    rows = [row_ | {"trust": "unverified"} for row_ in (row(text),)]
    made = build(records(*varied_rows(30), *rows), known)
    assert made.rejections == ()
    assert made.counts.records == 31
