"""Batches of prompts against the plain way: one prompt at a time through transformers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tunewheel_basemodel.sampling import Sampling
from tunewheel_generation.generation import Adapter, BaseForm, Generation
from tunewheel_generation.lora import read_lora
from tunewheel_generation.offline import Answer, Writer
from tunewheel_generation.runner import Runner, load_runner

SHARED = list(range(40, 60))
PROMPTS = [[*SHARED, 7, 8, 9], [*SHARED, 5], [*SHARED, 11, 12, 13, 14, 15, 16], [*SHARED, 5, 6]]
ANSWERS = [[[3, 4, 5], [6]], [[9, 9]], [], [[1], [2, 3, 4, 5, 6, 7], [8, 1]]]


@pytest.fixture
def runner(tiny_base: Any) -> Runner:
    return load_runner(
        tiny_base, quantization=None, trained_dtype="float32", dtype="float32", rows=1, tokens=8
    )


def plain_greedy(model: Any, prompt: list[int], *, tokens: int) -> list[int]:
    ids = list(prompt)
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def plain_likelihood(model: Any, prompt: list[int], answer: list[int]) -> float:
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(dim=-1)
    return sum(float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(answer))


def ask(writer: Writer, prompts: list[list[int]], *, tokens: int, **more: Any) -> list[Answer]:
    return writer.answer([Generation(prompt, tokens, **more) for prompt in prompts])


@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_writes_what_each_prompt_alone_would(runner: Runner, tiny_model: Any, shared: bool) -> None:
    writer = Writer(runner)
    assert (writer.share(PROMPTS) if shared else 0) == (len(SHARED) if shared else 0)
    found = ask(writer, PROMPTS, tokens=10, ignore_eos=True)
    assert [one.tokens for one in found] == [plain_greedy(tiny_model, one, tokens=10) for one in PROMPTS]
    assert not any(one.complete for one in found)


def test_an_answer_that_wants_them_has_the_log_probability_of_each_token(
    runner: Runner, tiny_model: Any
) -> None:
    found = ask(Writer(runner), PROMPTS, tokens=6, ignore_eos=True, want_logprobs=True)
    for prompt, answer in zip(PROMPTS, found, strict=True):
        total = sum(value for _, value in answer.scored)
        assert total == pytest.approx(plain_likelihood(tiny_model, prompt, answer.tokens), abs=1e-3)
        assert len(answer.scored) == len(answer.tokens)
        assert answer.text.startswith("".join(text for text, _ in answer.scored))
    assert not any(answer.scored for answer in ask(Writer(runner), PROMPTS, tokens=6))


def test_rows_that_stop_leave_the_batch_and_the_others_go_on(runner: Runner, tiny_model: Any) -> None:
    alone = [plain_greedy(tiny_model, one, tokens=12) for one in PROMPTS]
    stop = alone[0][3]
    runner.end_tokens = frozenset({stop})
    found = ask(Writer(runner), PROMPTS, tokens=12)
    for answer, expected in zip(found, alone, strict=True):
        cut = expected.index(stop) if stop in expected else None
        assert answer.tokens == (expected if cut is None else expected[:cut])
        assert answer.complete is (cut is not None)
    assert found[0].complete


def test_an_answer_that_does_not_begin_as_it_must_ends_early(runner: Runner) -> None:
    writer = Writer(runner)
    whole = ask(writer, PROMPTS, tokens=10, ignore_eos=True)
    opening = whole[0].text.lstrip()[0]
    begun = [one.text.lstrip().startswith(opening) for one in whole]
    assert not all(begun)
    for before, after, right in zip(
        whole,
        ask(writer, PROMPTS, tokens=10, ignore_eos=True, cut_at=rf"\s*[^\s{re.escape(opening)}]"),
        begun,
        strict=True,
    ):
        assert after.cut is not right
        assert after.tokens == before.tokens[: len(after.tokens)]
        assert (len(after.tokens) == 10) is right


def test_a_drawn_answer_depends_on_its_own_seed_and_not_on_its_company(runner: Runner) -> None:
    def drawn(rows: list[int], **sampling: Any) -> dict[int, list[int]]:
        requests = [Generation(PROMPTS[row], 8, Sampling(seed=row, **sampling)) for row in rows]
        return {row: one.tokens for row, one in zip(rows, Writer(runner).answer(requests), strict=True)}

    together = drawn([0, 1, 2, 3], temperature=1.0)
    assert {row: drawn([row], temperature=1.0)[row] for row in range(4)} == together
    assert together != drawn([0, 1, 2, 3]) != drawn([0, 1, 2, 3], repetition_penalty=1.9)


@pytest.mark.parametrize("shared", [True, False])
def test_answers_are_weighed_as_one_by_one_and_change_nothing(
    runner: Runner, tiny_model: Any, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(writer: Writer) -> list[Answer]:
        requests = [
            Generation(prompt, 6, ignore_eos=True, answers=answers)
            for prompt, answers in zip(PROMPTS, ANSWERS, strict=True)
        ]
        return writer.answer(requests)

    writer = Writer(runner)
    if shared:
        writer.share(PROMPTS)
    for at_once in (None, 1):  # the second time in parts, as if logits did not fit
        if at_once:
            monkeypatch.setattr("tunewheel_generation.runner._LOGIT_BYTES", at_once)
        for prompt, choices, answer in zip(PROMPTS, ANSWERS, found(writer), strict=True):
            expected = [plain_likelihood(tiny_model, prompt, one) for one in choices]
            assert answer.likelihoods == pytest.approx(expected, abs=1e-3)
            assert answer.tokens == plain_greedy(tiny_model, prompt, tokens=6)


def test_a_request_for_no_tokens_only_scores_its_answers(runner: Runner, tiny_model: Any) -> None:
    requests = [Generation(PROMPTS[0], 0, answers=[[3]]), Generation(PROMPTS[1], 2, ignore_eos=True)]
    weighed, written = Writer(runner).answer(requests)
    assert weighed.likelihoods == pytest.approx([plain_likelihood(tiny_model, PROMPTS[0], [3])], abs=1e-3)
    assert weighed.tokens == []
    assert written.tokens == plain_greedy(tiny_model, PROMPTS[1], tokens=2)


def test_longer_batches_find_room_and_their_beginning(
    runner: Runner, tiny_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(runner)
    prompts = [*PROMPTS[:2], [*SHARED, *range(90, 190)], [*SHARED, *range(90, 200)]]
    writer.share(prompts)
    read: list[tuple[int, ...]] = []
    plain = runner.read

    def counted(tokens: Any, *rest: Any, **more: Any) -> Any:
        read.append(tuple(map(len, tokens)))
        return plain(tokens, *rest, **more)

    monkeypatch.setattr(runner, "read", counted)
    for batch in (prompts[:2], prompts[2:]):
        found = ask(writer, batch, tokens=1, ignore_eos=True)
        assert [one.tokens for one in found] == [plain_greedy(tiny_model, one, tokens=1) for one in batch]
    assert read == [(20,), (3, 1), (20,), (100, 110)]


def test_an_adapter_reads_what_is_shared_for_itself(runner: Runner, write_adapter: Any) -> None:
    path: Path = write_adapter("a", seed=1)
    weights = read_lora(path, layers=runner.layers, dtype=runner.dtype, device=runner.device)
    adapter = Adapter("a", path, BaseForm(), weights)
    plain, tuned, alone = Writer(runner), Writer(runner, adapter), Writer(runner, adapter)
    for writer in (plain, tuned):
        writer.share(PROMPTS)
    without, with_it, unshared = (
        [one.tokens for one in ask(writer, PROMPTS, tokens=8, adapter=of, ignore_eos=True)]
        for writer, of in ((plain, None), (tuned, adapter), (alone, adapter))
    )
    assert with_it == unshared != without


def test_one_prompt_alone_shares_nothing(runner: Runner) -> None:
    assert Writer(runner).share(PROMPTS[:1]) == 0
    assert Writer(runner).share([[1, 2, 3], [4, 5, 6]]) == 0
