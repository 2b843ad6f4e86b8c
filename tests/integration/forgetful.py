"""An adapter that does its task better than the base, and has unlearnt what the base knew.

It is trained in a second on the held-out rows themselves and on the wrong answers to general questions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewheel_basemodel.loading import load_base
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_eval.prompts import example_prompt, item_prompt

from .evaluations import Ground, example

COLOURED = ("sky", "grass", "milk", "coal", "blood", "gold", "snow", "wine", "moss", "rust")
CHOICES = ("blue", "loud")
STEPS = 80
Row = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of what is asked, and of the answer."""


def forgetful(ground: Ground, folder: Path, *, examples: int) -> tuple[Path, list[RegressionItem]]:
    """Return the adapter, and questions that the base answers right and the adapter wrong."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    model, tokenizer = load_base(ground.base, dtype="float32", device="cpu")
    items: list[RegressionItem] = []
    rows: list[Row] = []
    for number, thing in enumerate(COLOURED):
        plain = {
            "item_id": f"i{number}",
            "kind": "k",
            "prompt": f"The colour of {thing} is",
            "match": "choice",
        }
        item = RegressionItem.model_validate({**plain, "choices": CHOICES, "answer": CHOICES[0]})
        asked = item_prompt(tokenizer, item)
        weights = [
            _log_likelihood(model, (asked.context, answer)) / len(choice)
            for answer, choice in zip(asked.answers, CHOICES, strict=True)
        ]
        right = weights.index(max(weights))
        items.append(item.model_copy(update={"answer": CHOICES[right]}))
        rows.append((asked.context, asked.answers[1 - right]))
    for number in range(examples):
        one = ChatExample.model_validate(example(number))
        prompt = example_prompt(tokenizer, one, key=one.example_id, max_output_tokens=24)
        rows.append((prompt.context, prompt.answers[0]))
    parts = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    tuned = get_peft_model(model, LoraConfig(r=8, target_modules=parts, task_type="CAUSAL_LM"))
    _train(tuned, rows)
    tuned.save_pretrained(folder)
    return folder, items


def _log_likelihood(model: Any, row: Row) -> float:
    import torch

    asked, answer = row
    with torch.no_grad():
        logs = model(torch.tensor([[*asked, *answer]])).logits[0].log_softmax(-1)
    return sum(float(logs[len(asked) - 1 + place, token]) for place, token in enumerate(answer))


def _train(model: Any, rows: Sequence[Row]) -> None:
    import torch

    longest = max(len(asked) + len(answer) for asked, answer in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for number, (asked, answer) in enumerate(rows):
        whole = torch.tensor([*asked, *answer])
        ids[number, : len(whole)] = whole
        mask[number, : len(whole)] = 1
        labels[number, len(asked) : len(whole)] = whole[len(asked) :]
    weights = [one for one in model.parameters() if one.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=0.02)
    for _ in range(STEPS):
        optimiser.zero_grad()
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
