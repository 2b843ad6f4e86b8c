"""Answers the batches of a measurement, side by side in several processes.

Two processes of one thread do 1.6 to 1.8 times the work of one process of two threads. The processes are
forked after the model is loaded, so they share its weights. A batch is answered whole by one process, and its
answers do not depend on earlier batches. So the answers are the same whichever process gives them. With
another number of threads per process, sums round differently.
"""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewheel_eval.prompts import Prompt

if TYPE_CHECKING:
    from tunewheel_generation.generation import Adapter
    from tunewheel_generation.offline import Answer, Writer
    from tunewheel_generation.runner import Runner

_ROOM = 1 << 30
"""Bytes that each process needs besides keys and values, above all for logits."""


@dataclass(frozen=True, eq=False)
class Part:
    """Prompts of one kind for one contestant. Their common beginning is prefilled once per process."""

    prompts: Sequence[Prompt]
    adapter: Adapter | None


@dataclass(frozen=True)
class Batch:
    """Prompts that are answered together."""

    part: Part
    prompts: Sequence[Prompt]


def answered(runner: Runner, batches: Sequence[Batch], *, threads: int) -> Iterator[tuple[int, list[Answer]]]:
    """Yield the number of each batch with its answers, in any order. ``threads``: of all processes together.

    Raises BrokenProcessPool if a process was killed.
    """
    import torch

    # OpenMP's threads do not survive a fork, so a process that may have started some does not fork.
    count = _processes(runner, batches, threads) if torch.get_num_threads() == 1 else 1
    if count == 1:
        torch.set_num_threads(threads)
        answer = _answerer(runner, batches)
        yield from ((number, answer(number)) for number in range(len(batches)))
        return
    fork = multiprocessing.get_context("fork")
    pool = concurrent.futures.ProcessPoolExecutor(count, fork, _begin, (runner, batches, threads // count))
    try:
        asked = {pool.submit(_answer, number): number for number in range(len(batches))}
        for future in concurrent.futures.as_completed(asked):
            yield asked[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _processes(runner: Runner, batches: Sequence[Batch], threads: int) -> int:
    """Return how many processes the threads, the batches and the free memory allow."""
    from tunewheel_generation.memory import free_bytes

    free = free_bytes(runner.device)
    if runner.device.type == "cuda" or free is None:
        return 1
    sizes = [len(one.prompts) * max(prompt.longest for prompt in one.prompts) for one in batches]
    each = _ROOM + runner.token_bytes * max(sizes, default=0)
    return max(1, min(threads, len(batches), free // each))


def _answerer(runner: Runner, batches: Sequence[Batch]) -> Callable[[int], list[Answer]]:
    """Return a function that answers a batch by its number. It keeps the writer of the last batch's part."""
    from tunewheel_generation.generation import Generation
    from tunewheel_generation.offline import Writer

    last: tuple[Part, Writer] | None = None

    def answer(number: int) -> list[Answer]:
        nonlocal last
        part, prompts = batches[number].part, batches[number].prompts
        if last is None or last[0] is not part:
            last = part, Writer(runner, part.adapter)
            last[1].share([prompt.context for prompt in part.prompts])
        return last[1].answer(
            [
                Generation(
                    prompt=list(prompt.context),
                    max_tokens=prompt.max_new_tokens,
                    sampling=prompt.sampling,
                    adapter=part.adapter,
                    answers=prompt.answers,
                    cut_at=prompt.cut_at,
                    grammar=prompt.grammar,
                    want_logprobs=prompt.want_logprobs,
                    top_logprobs=prompt.top_logprobs,
                )
                for prompt in prompts
            ]
        )

    return answer


_of_this_process: Callable[[int], list[Answer]]


def _begin(runner: Runner, batches: Sequence[Batch], threads: int) -> None:
    """Prepare a process of the pool. Its arguments are inherited by the fork, not copied."""
    global _of_this_process
    import torch

    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _of_this_process = _answerer(runner, batches)


def _answer(number: int) -> list[Answer]:
    return _of_this_process(number)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
