"""Tokens are drawn as the parameters say, and a row's draw depends on nothing but its own."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tunewheel_basemodel.sampling import Sampler, Sampling, choose_tokens, likeliest, logprobs_of

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


def test_penalties_are_openais() -> None:
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, where c counts the answer and not the prompt."""
    logits = torch.tensor([3.0, 2.6, 2.0])

    def first_eight(**penalties: float) -> list[int]:
        sampler = Sampler(Sampling(**penalties), CPU, prompt=[0, 0, 0])
        return [choose_tokens(logits[None], [sampler])[0] for _ in range(8)]

    def expected(presence: float, frequency: float) -> list[int]:
        counts, chosen = [0, 0, 0], []
        for _ in range(8):
            scores = [
                float(logits[token]) - counts[token] * frequency - (counts[token] > 0) * presence
                for token in range(3)
            ]
            chosen.append(scores.index(max(scores)))
            counts[chosen[-1]] += 1
        return chosen

    assert first_eight(presence_penalty=0.5) == expected(0.5, 0)
    assert first_eight(frequency_penalty=0.3) == expected(0, 0.3)
    assert first_eight(presence_penalty=0.5, frequency_penalty=-0.2) == expected(0.5, -0.2)
    assert len(set(first_eight(frequency_penalty=0.3))) == 3


def test_min_p_cuts_what_is_far_below_the_likeliest() -> None:
    chances = torch.tensor([0.5, 0.3, 0.15, 0.05])
    seen = draws(chances.log(), Sampling(temperature=1.0, min_p=0.25, seed=5))
    assert set(seen) == {0, 1, 2}  # 0.05 is below a quarter of 0.5
    assert seen[0] / 1000 == pytest.approx(0.5 / 0.95, abs=0.06)
    assert set(draws(chances.log(), Sampling(temperature=1.0, min_p=1.0, seed=5), 50)) == {0}


def test_a_bias_is_added_to_a_tokens_score() -> None:
    logits = torch.tensor([[1.0, 0.0, 0.9]])
    biased = Sampling(logit_bias=((0, -100.0), (1, 5.0), (7, 100.0)))  # no token 7: without effect
    assert choose_tokens(logits, [Sampler(biased, CPU)]) == [1]
    assert draws(logits[0], Sampling(temperature=1.0, seed=1)).keys() == {0, 1, 2}


class Alternating:
    """Lets even tokens follow, then odd ones."""

    def __init__(self) -> None:
        self.accepted: list[int] = []

    def allowed(self, size: int) -> torch.Tensor:
        return torch.arange(len(self.accepted) % 2, size, 2)

    def accept(self, token: int) -> None:
        self.accepted.append(token)


@pytest.mark.parametrize("sampling", [
    Sampling(), Sampling(temperature=1.0, seed=1), Sampling(temperature=2.0, top_p=0.999, seed=1),
    Sampling(temperature=1.0, top_k=50, min_p=0.001, seed=1), Sampling(presence_penalty=1.0),
])  # fmt: skip
def test_a_constrained_row_keeps_to_what_is_allowed(sampling: Sampling) -> None:
    logits = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    constraint = Alternating()
    constrained, free = Sampler(sampling, CPU, constraint=constraint), Sampler(sampling, CPU)
    alone = Sampler(sampling, CPU)
    for at in range(40):
        chosen = choose_tokens(logits, [constrained, free])
        assert chosen[0] % 2 == at % 2
        assert chosen[1:] == choose_tokens(logits[1:], [alone]), "the row beside it is as if alone"
        assert constraint.accepted[-1] == chosen[0]


@pytest.mark.parametrize("seed", [None, 0, -1, -(1 << 63), (1 << 64) - 1])
def test_any_seed_is_good(seed: int | None) -> None:
    assert 0 <= Sampler(Sampling(temperature=1.0, seed=seed), CPU).choose(torch.zeros(5)) < 5


def test_logprobs_are_those_of_the_model() -> None:
    logits = torch.randn(2, 30)
    expected = torch.log_softmax(logits, -1)
    assert logprobs_of(logits, [4, 7]) == pytest.approx(
        [float(expected[0, 4]), float(expected[1, 7])], abs=1e-5
    )


def test_the_likeliest_tokens_come_with_the_models_log_probabilities() -> None:
    logits = torch.randn(30)
    expected = torch.log_softmax(logits, -1)
    best = likeliest(logits, 3)
    assert [token for token, _ in best] == expected.topk(3).indices.tolist()
    assert [value for _, value in best] == pytest.approx(expected.topk(3).values.tolist(), abs=1e-5)
    assert len(likeliest(logits, 99)) == 30
