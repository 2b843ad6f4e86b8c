"""The batched decoder against the plain one: one prompt at a time through transformers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tunewheel_basemodel.sampling import Sampler, Sampling
from tunewheel_eval.decoding import Decoder

SHARED = list(range(40, 60))
CONTEXTS = [[*SHARED, 7, 8, 9], [*SHARED, 5], [*SHARED, 11, 12, 13, 14, 15, 16], [*SHARED, 5, 6]]


def decoder(model: Any, *, stop_ids: tuple[int, ...] = ()) -> Decoder:
    return Decoder(model, stop_ids=stop_ids, pad_id=0)


def plain_greedy(model: Any, context: list[int], *, tokens: int) -> list[int]:
    ids = list(context)
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(context) :]


def plain_likelihood(model: Any, context: list[int], answer: list[int]) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([context + answer])).logits[0].log_softmax(dim=-1)
    return sum(float(logits[len(context) - 1 + at, token]) for at, token in enumerate(answer))


@pytest.mark.parametrize("shared", [True, False])
def test_batch_writes_what_each_prompt_alone_would(tiny: tuple[Any, Any], shared: bool) -> None:
    model = tiny[0]
    batched = decoder(model)
    assert (batched.share_prefix(CONTEXTS) if shared else 0) == (len(SHARED) if shared else 0)
    found = batched.generate(batched.prefill(CONTEXTS), max_new_tokens=10)
    assert [ids for ids, _ in found] == [plain_greedy(model, one, tokens=10) for one in CONTEXTS]
    assert not any(complete for _, complete in found)


def test_rows_that_stop_leave_the_batch_and_the_others_go_on(tiny: tuple[Any, Any]) -> None:
    model = tiny[0]
    alone = [plain_greedy(model, one, tokens=12) for one in CONTEXTS]
    stop = alone[0][3]
    batched = decoder(model, stop_ids=(stop,))
    found = batched.generate(batched.prefill(CONTEXTS), max_new_tokens=12)
    for (ids, complete), expected in zip(found, alone, strict=True):
        cut = expected.index(stop) if stop in expected else None
        assert ids == (expected if cut is None else expected[:cut])
        assert complete is (cut is not None)
    assert found[0][1]


def test_a_drawn_answer_depends_on_its_own_seed_and_not_on_its_company(tiny: tuple[Any, Any]) -> None:
    model = tiny[0]

    def drawn(rows: list[int], **sampling: Any) -> dict[int, list[int]]:
        batched, contexts = decoder(model), [CONTEXTS[row] for row in rows]
        samplers = [
            Sampler(Sampling(seed=row, **sampling), model.device, prompt=context)
            for row, context in zip(rows, contexts, strict=True)
        ]
        found = batched.generate(batched.prefill(contexts), max_new_tokens=8, samplers=samplers)
        return {row: ids for row, (ids, _) in zip(rows, found, strict=True)}

    together = drawn([0, 1, 2, 3], temperature=1.0)
    assert {row: drawn([row], temperature=1.0)[row] for row in range(4)} == together
    assert together != drawn([0, 1, 2, 3]) != drawn([0, 1, 2, 3], repetition_penalty=1.9)


def test_generation_ends_when_every_row_has(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny[0]
    first = {plain_greedy(model, one, tokens=1)[0] for one in CONTEXTS}
    batched = decoder(model, stop_ids=tuple(first))
    prefilled = batched.prefill(CONTEXTS)
    steps: list[int] = []
    monkeypatch.setattr(batched, "_step", lambda *_: steps.append(1))
    assert batched.generate(prefilled, max_new_tokens=1000) == [([], True)] * len(CONTEXTS)
    assert steps == []


@pytest.mark.parametrize("shared", [True, False])
def test_likelihoods_of_uneven_answers_match_one_by_one(tiny: tuple[Any, Any], shared: bool) -> None:
    model = tiny[0]
    answers = [[[3, 4, 5], [6]], [[9, 9]], [], [[1], [2, 3, 4, 5, 6, 7], [8, 1]]]
    batched = decoder(model)
    if shared:
        batched.share_prefix(CONTEXTS)
    found = batched.log_likelihoods(CONTEXTS, answers)
    for context, choices, sums in zip(CONTEXTS, answers, found, strict=True):
        assert sums == pytest.approx([plain_likelihood(model, context, one) for one in choices], abs=1e-3)


def test_likelihoods_leave_the_prompts_ready_for_generation(tiny: tuple[Any, Any]) -> None:
    model = tiny[0]
    batched = decoder(model)
    batched.share_prefix(CONTEXTS)
    prefilled = batched.prefill(CONTEXTS)
    batched.likelihoods_after(prefilled, [[[1, 2, 3]]] * len(CONTEXTS))
    found = batched.generate(prefilled, max_new_tokens=6)
    assert [ids for ids, _ in found] == [plain_greedy(model, one, tokens=6) for one in CONTEXTS]


def test_answers_are_sliced_when_logits_would_not_fit(
    tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [[[1, 2], [3]], [[4, 5, 6]], [[7]], [[8, 9]]]
    whole = decoder(tiny[0]).log_likelihoods(CONTEXTS, answers)
    monkeypatch.setattr("tunewheel_eval.decoding._LOGIT_BYTES", 1)
    sliced = decoder(tiny[0]).log_likelihoods(CONTEXTS, answers)
    for one, other in zip(whole, sliced, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_one_prompt_alone_shares_nothing(tiny: tuple[Any, Any]) -> None:
    assert decoder(tiny[0]).share_prefix(CONTEXTS[:1]) == 0
    assert decoder(tiny[0]).share_prefix([[1, 2, 3], [4, 5, 6]]) == 0
