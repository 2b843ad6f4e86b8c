"""A prompt's beginning that was read before, for the same adapter, is not read again."""

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


@pytest.fixture
def runner(tiny_base):
    return load_runner(
        tiny_base, quantization=None, trained_dtype="float32", dtype="float32", rows=4, tokens=64
    )


@pytest.fixture
def read_lengths(runner, monkeypatch) -> list[int]:
    """Number of tokens of each reading."""
    lengths: list[int] = []
    read = runner.read

    def counted(tokens, start, lora):
        lengths.append(len(tokens))
        return read(tokens, start, lora)

    monkeypatch.setattr(runner, "read", counted)
    return lengths


@pytest.fixture
def answer(runner) -> Callable[..., list[list[int]]]:
    """Call it with requests for their tokens; ``alone`` lets each wait for the one before, and ``fresh``
    also forgets what was read before each."""

    def run(requests: list[Generation], *, alone: bool = False, fresh: bool = False) -> list[list[int]]:
        made: dict[Generation, list[int]] = {request: [] for request in requests}
        lane = Lane(
            runner,
            rows=4,
            prefill_tokens=16,
            deliver=lambda request, step: made[request].append(step.token.id),
        )
        waiting = list(requests)
        while waiting or lane.running:
            if fresh and not lane.running:
                lane._staged, lane._kept = (None, []), PrefixCache(runner.kept)
            if alone or fresh:
                lane.work(lambda: waiting.pop(0) if waiting and not lane.running else None)
            else:
                lane.work(lambda: waiting.pop(0) if waiting else None)
        return list(made.values())

    return run


def request(tail: list[int], adapter: Adapter | None = None) -> Generation:
    return Generation(SYSTEM + tail, 8, ignore_eos=True, adapter=adapter)


def test_answers_stay_the_same(runner, answer, write_adapter) -> None:
    weights = read_lora(
        write_adapter("a", seed=1), layers=runner.layers, dtype=runner.dtype, device=runner.device
    )
    adapter = Adapter("a", Path("a"), BaseForm(), weights)
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
    assert answer(requests[1]) == expected
    assert answer(requests[2], alone=True) == expected


def test_only_what_is_new_is_read(answer, read_lengths: list[int]) -> None:
    answer([request([1, 2, 3]), request([4]), request([4]), request([])])
    assert read_lengths == [13, 1, 1, 1]


def test_another_adapter_reads_for_itself(runner, answer, write_adapter, read_lengths: list[int]) -> None:
    weights = read_lora(
        write_adapter("a", seed=1), layers=runner.layers, dtype=runner.dtype, device=runner.device
    )
    adapter = Adapter("a", Path("a"), BaseForm(), weights)
    answer([request([1]), request([2], adapter), request([3]), request([4], adapter)])
    # The third finds its beginning in the first one's row, the fourth in the second one's.
    assert read_lengths == [11, 5, 6, 1, 1]


def test_requests_that_left_are_remembered_for_each_adapter(
    runner, answer, write_adapter, read_lengths: list[int]
) -> None:
    weights = read_lora(
        write_adapter("a", seed=1), layers=runner.layers, dtype=runner.dtype, device=runner.device
    )
    adapter = Adapter("a", Path("a"), BaseForm(), weights)
    answer([request([1]), request([2], adapter), request([3]), request([4], adapter)], alone=True)
    assert read_lengths == [11, 11, 1, 1]


def test_a_conversation_goes_on_where_it_was(answer, read_lengths: list[int]) -> None:
    (said,) = answer([request([1])])
    read_lengths.clear()
    conversation = [request([1]), Generation([50, 51], 2), request([1, *said, 60, 61])]
    answers = answer(conversation, alone=True)
    assert read_lengths == [11, 2, 3]  # the last token of an answer was never read
    (expected,) = answer([request([1, *said, 60, 61])])
    assert answers[2] == expected


def test_an_answer_of_one_token_is_remembered_too(answer, read_lengths: list[int]) -> None:
    answer([Generation(SYSTEM, 1), Generation([50, 51], 1), Generation([*SYSTEM, 3], 1)], alone=True)
    assert read_lengths == [10, 2, 1]
