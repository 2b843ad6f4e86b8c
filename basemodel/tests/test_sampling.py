"""Tokens are drawn as the parameters say, and a row's draw depends on nothing but its own."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tunewheel_basemodel.sampling import Sampler, Sampling, choose_tokens, logprobs_of

CPU = torch.device("cpu")


def draws(logits: torch.Tensor, sampling: Sampling, count: int = 1000) -> Counter[int]:
    sampler = Sampler(sampling, CPU)
    return Counter(sampler.choose(logits) for _ in range(count))


def test_draws_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -20.0])
    for temperature in (0.5, 1.0, 2.0):
        seen = draws(logits, Sampling(temperature=temperature, seed=1))
        for token, chance in enumerate(torch.softmax(logits / temperature, -1).tolist()):
            assert seen[token] / 1000 == pytest.approx(chance, abs=0.06)


@pytest.mark.parametrize("vocabulary", [10, 5000])
def test_top_p_keeps_the_smallest_set_that_reaches_it(vocabulary: int) -> None:
    chances = torch.full((vocabulary,), 0.1 / (vocabulary - 3))
    chances[:3] = torch.tensor([0.5, 0.3, 0.1])
    seen = draws(chances.log(), Sampling(temperature=1.0, top_p=0.75, seed=2))
    assert set(seen) == {0, 1}
    assert seen[0] / 1000 == pytest.approx(0.625, abs=0.06)
    assert set(draws(chances.log(), Sampling(temperature=1.0, top_p=0.85, seed=2))) == {0, 1, 2}
    assert set(draws(chances.log(), Sampling(temperature=1.0, top_p=0.01, seed=2))) == {0}


def test_a_flat_distribution_is_cut_right_too() -> None:
    logits = torch.zeros(4000)
    seen = draws(logits, Sampling(temperature=1.0, top_p=0.9, seed=3), 200)
    assert len(seen) > 150


def test_top_k() -> None:
    seen = draws(torch.arange(50.0) / 50, Sampling(temperature=1.0, top_k=3, seed=4))
    assert set(seen) == {47, 48, 49}


def test_a_row_draws_the_same_whatever_is_beside_it() -> None:
    logits = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))

    def draw(rows: list[int]) -> dict[int, list[int]]:
        samplers = [Sampler(Sampling(temperature=1.0, top_p=0.9, seed=row), CPU) for row in rows]
        steps = [choose_tokens(logits[rows], samplers) for _ in range(20)]
        return {row: [step[at] for step in steps] for at, row in enumerate(rows)}

    together = draw([0, 1, 2])
    assert {row: draw([row])[row] for row in range(3)} == together
    assert draw([2, 0])[2] == together[2]


def test_greedy_and_drawn_rows_share_a_batch() -> None:
    logits = torch.tensor([[0.0, 9.0, 1.0], [0.0, 0.0, 50.0]])
    samplers = [Sampler(Sampling(), CPU), Sampler(Sampling(temperature=1.0), CPU)]
    assert choose_tokens(logits, samplers) == [1, 2]


def test_repeating_costs_what_transformers_makes_it_cost() -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.tensor([3.0, 2.9, 2.5, -1.0])
    sampler = Sampler(Sampling(repetition_penalty=1.3), CPU, prompt=[3])
    theirs, ids = RepetitionPenaltyLogitsProcessor(1.3), [3]
    for _ in range(6):
        [token] = choose_tokens(logits[None], [sampler])
        assert token == int(theirs(torch.tensor([ids]), logits[None].clone()).argmax())
        ids.append(token)
    assert {0, 1, 2} <= set(ids)  # the likeliest one was passed over


def test_a_drawn_row_pays_for_repeating_too() -> None:
    logits = torch.tensor([5.0, 5.0])
    sampling = Sampling(temperature=1.0, repetition_penalty=2.0, seed=1)
    first = [choose_tokens(logits[None], [Sampler(sampling, CPU, prompt=[0])])[0] for _ in range(20)]
    assert set(first) == {1}  # the same seed each time, and the token of the prompt is a twelfth as likely


@pytest.mark.parametrize("seed", [None, 0, -1, -(1 << 63), (1 << 64) - 1])
def test_any_seed_is_good(seed: int | None) -> None:
    assert 0 <= Sampler(Sampling(temperature=1.0, seed=seed), CPU).choose(torch.zeros(5)) < 5


def test_logprobs_are_those_of_the_model() -> None:
    logits = torch.randn(2, 30)
    expected = torch.log_softmax(logits, -1)
    assert logprobs_of(logits, [4, 7]) == pytest.approx(
        [float(expected[0, 4]), float(expected[1, 7])], abs=1e-5
    )
