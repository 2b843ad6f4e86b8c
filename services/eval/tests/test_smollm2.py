"""The real base model on a handful of items."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_basemodel.chat import encode_chat
from tunewheel_basemodel.locate import BaseModel
from tunewheel_basemodel.tokenizer import open_tokenizer
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import general_items
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.job import ContestantJob, Job
from tunewheel_eval.measurement import HoldoutRow, read_measurement
from tunewheel_eval.measuring import measure
from tunewheel_eval.metrics import outcomes
from tunewheel_eval.prompts import example_prompt

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def holdout() -> tuple[ChatExample, ...]:
    asked = {
        "The parcel is a week late.": "delivery",
        "You charged me twice for one battery!": "billing",
        "My invoice is wrong, who can help?": "billing",
        "courier left it in the rain": "delivery",
    }
    system = "You are a help desk. Answer with JSON: category."
    return tuple(
        ChatExample.model_validate(
            {
                "example_id": f"ex-{n}",
                "messages": [
                    {"role": "system", "content": system},
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": json.dumps({"category": label})},
                ],
                "group": f"g-{n}",
                "trust": "expert",
                "record_ids": [],
            }
        )
        for n, (question, label) in enumerate(asked.items())
    )


def test_base_is_measured_on_the_tokens_that_training_teaches(
    smollm2: BaseModel, holdout: tuple[ChatExample, ...]
) -> None:
    tokenizer = open_tokenizer(smollm2.path)
    for one in holdout:
        ids, mask = encode_chat(tokenizer, [m.model_dump() for m in one.messages])
        prompt = example_prompt(tokenizer, one, key="k", max_output_tokens=8)
        assert list(prompt.context) == ids[: len(prompt.context)]
        assert list(prompt.answers[0]) == [t for t, learn in zip(ids, mask, strict=True) if learn]


def test_base_speaks_knows_things_and_answers_no_json(
    smollm2: BaseModel, holdout: tuple[ChatExample, ...], tmp_path: Path
) -> None:
    items = [item for item in general_items() if item.choices][:16]
    contestant = ContestantJob(
        role=Role.BASE,
        model_key="base",
        base=BaseModelRef(name=smollm2.name, revision=smollm2.revision),
        rows=tmp_path / "base.jsonl",
    )
    cache = smollm2.path.parent.parent
    job = Job(contestants=(contestant,), examples=holdout, items=items, max_output_tokens=16, cache_dir=cache)
    measure(job, lambda _: None)
    found = read_measurement(contestant.rows.read_text())
    assert found is not None
    said = [row.output for row in found.rows.values() if isinstance(row, HoldoutRow)]
    assert all(len(text.split()) > 3 for text in said)
    schema = {"type": "object", "required": ["category"]}
    task = TaskSpec(system_prompt="s", output_schema=schema, label_field="category", max_output_tokens=16)  # type: ignore[arg-type]
    figures = outcomes(found, holdout, items, task).figures()
    assert figures["valid_output"] == 0
    assert figures["regression_accuracy"] > 0.4  # chance is about 0.25
    assert 1 < figures["perplexity"] < 200
