"""Requests join, leave and share what was read, and each gets what it would get alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tunewheel_generation.generation import Adapter, BaseForm, Generation
from tunewheel_generation.lane import Lane
from tunewheel_generation.lora import read_lora
from tunewheel_generation.prefix_cache import PrefixCache
from tunewheel_generation.runner import load_runner

SYSTEM = [5, 9, 33, 70, 101, 7, 250, 12, 88, 91]
LONG = [40, 41, 42] * 10


@pytest.fixture(scope="module")
def runner(tiny_base):
    return load_runner(
        tiny_base, quantization=None, trained_dtype="float32", dtype="float32", rows=4, tokens=64
    )


@pytest.fixture
def readings(runner, monkeypatch) -> list[tuple[int, ...]]:
    """How many tokens of each prompt every reading took."""
    found: list[tuple[int, ...]] = []
    read = runner.read

    def counted(tokens, starts, loras, *, first=None):
        if first is not None:  # a step begins with the first row and does not say so
            found.append(tuple(map(len, tokens)))
        return read(tokens, starts, loras, first=first or 0)

    monkeypatch.setattr(runner, "read", counted)
    return found


@pytest.fixture
def eager(monkeypatch) -> None:
    """Let requests wait for whatever they could copy."""
    monkeypatch.setattr("tunewheel_generation.lane.WORTH_A_READING", 1)


@pytest.fixture
def answer(runner) -> Callable[..., list[list[int]]]:
    """Call it with requests for their tokens; ``alone`` lets each wait for the one before, and ``fresh``
    also forgets what was read before each. ``leaves``: a request, and before which step it is cancelled."""

    def run(
        requests: list[Generation],
        *,
        prefill: int = 16,
        alone: bool = False,
        fresh: bool = False,
        leaves: tuple[int, int] | None = None,
    ) -> list[list[int]]:
        made: dict[Generation, list[int]] = {request: [] for request in requests}
        lane = Lane(
            runner,
            rows=4,
            prefill_tokens=prefill,
            deliver=lambda request, step: made[request].append(step.token.id),
        )
        waiting, step = list(requests), 0
        while waiting or lane.running:
            if fresh and not lane.running:
                lane._kept = PrefixCache(runner.kept)
            if leaves == (leaves and leaves[0], step):
                requests[leaves[0]].cancel()
            if alone or fresh:
                lane.work(lambda: waiting.pop(0) if waiting and not lane.running else None)
            else:
                lane.work(lambda: waiting.pop(0) if waiting else None)
            step += 1
        return list(made.values())

    return run


@pytest.fixture
def adapter(runner, write_adapter) -> Adapter:
    weights = read_lora(
        write_adapter("a", seed=1), layers=runner.layers, dtype=runner.dtype, device=runner.device
    )
    return Adapter("a", Path("a"), BaseForm(), weights)


def request(tail: list[int], adapter: Adapter | None = None, *, tokens: int = 8) -> Generation:
    return Generation(SYSTEM + tail, tokens, ignore_eos=True, adapter=adapter)


@pytest.mark.parametrize("prefill", [3, 16, 64])
def test_answers_stay_the_same(answer, adapter: Adapter, eager: None, prefill: int) -> None:
    tails = [
        ([1], None),
        ([2, 3], None),
        ([1], adapter),
        ([2], None),
        ([1], None),
        ([4, 4], adapter),
        ([], None),
    ]
    requests = [[request(tail, of) for tail, of in tails] for _ in range(3)]
    expected = answer(requests[0], fresh=True)
    assert answer(requests[1], prefill=prefill) == expected
    assert answer(requests[2], prefill=prefill, alone=True) == expected


@pytest.mark.parametrize("who", range(4))
def test_one_who_leaves_takes_nothing_from_the_others(answer, who: int) -> None:
    def requests() -> list[Generation]:
        prompts = ([7, 8], [9], LONG, [*LONG[::-1], 3], [10, 11])
        return [Generation(prompt, 6, ignore_eos=True) for prompt in prompts]

    expected = answer(requests(), fresh=True)
    for step in range(1, 6):
        for at, tokens in enumerate(answer(requests(), leaves=(who, step))):
            if at != who:
                assert tokens == expected[at], step
            else:
                assert tokens == expected[at][: len(tokens)], step


def test_prompts_are_read_together(answer, readings) -> None:
    answer([request([1, 2, 3]), request([4]), request([4]), request([])], prefill=64)
    assert readings == [(13, 11, 11, 10)]


def test_a_request_waits_for_a_common_prefix_if_that_saves_more_than_a_prefill_costs(
    answer, readings, monkeypatch
) -> None:
    monkeypatch.setattr("tunewheel_generation.lane.WORTH_A_READING", 29)
    answer([request([1, 2, 3]), request([4]), request([4]), request([])], prefill=64)
    assert readings == [(13,), (1, 1, 1)]


def test_no_more_is_read_between_two_steps_than_told(answer, readings) -> None:
    answer([Generation(LONG, 1), Generation([7, 8, 9], 1)])
    assert readings == [(16,), (14,), (2,), (1,)]


def test_another_adapter_reads_for_itself(answer, adapter: Adapter, eager: None, readings) -> None:
    answer([request([1]), request([2], adapter), request([3]), request([4], adapter)])
    # The third finds its beginning in the first one's row, the fourth in the second one's.
    assert readings == [(11,), (5,), (6, 1), (1,)]


def test_requests_that_left_are_remembered_for_each_adapter(answer, adapter: Adapter, readings) -> None:
    answer([request([1]), request([2], adapter), request([3]), request([4], adapter)], alone=True)
    assert readings == [(11,), (11,), (1,), (1,)]


def test_a_conversation_goes_on_where_it_was(answer, readings) -> None:
    (said,) = answer([request([1])])
    readings.clear()
    conversation = [request([1]), Generation([50, 51], 2), request([1, *said, 60, 61])]
    answers = answer(conversation, alone=True)
    assert readings == [(11,), (2,), (3,)]  # the last token of an answer was never read
    (expected,) = answer([request([1, *said, 60, 61])])
    assert answers[2] == expected


def test_an_answer_of_one_token_is_remembered_too(answer, readings) -> None:
    answer([Generation(SYSTEM, 1), Generation([50, 51], 1), Generation([*SYSTEM, 3], 1)], alone=True)
    assert readings == [(10,), (2,), (1,)]
