"""What the trainer of examples computes, and what it leaves out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tunewheel_train.data.datasets import encode_examples, read_examples


@pytest.fixture
def rows_of_logits() -> Iterator[list[int]]:
    """How many rows went through the vocabulary, a number per training pass."""
    rows: list[int] = []

    def note(module: torch.nn.Module, _: object, output: object) -> None:
        if module._get_name() == "LlamaForCausalLM" and module.training and torch.is_grad_enabled():
            rows.append(output.logits.shape[:-1].numel())

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    yield rows
    hook.remove()


def test_only_learnt_positions_go_through_the_vocabulary(case, tiny, rows_of_logits):
    run = case()
    examples, _ = encode_examples(read_examples(run.job.train_path), tiny[1], max_tokens=512)
    learnt = sum(sum(example.mask[1:]) for example in examples)
    assert 2 * learnt < sum(map(len, examples))
    run.train()
    assert len(rows_of_logits) == 6 * 2  # steps of two micro-batches
    assert sum(rows_of_logits) == learnt
