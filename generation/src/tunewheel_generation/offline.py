"""Generates answers for batches of prompts offline: all prompts of a batch are prefilled before its first
step."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunewheel_generation.constraint import GrammarBroken
from tunewheel_generation.generation import Adapter, Generation, Progress
from tunewheel_generation.lane import WORTH_COPYING, Lane
from tunewheel_generation.prefix_cache import common

if TYPE_CHECKING:
    from tunewheel_generation.runner import Runner


@dataclass
class Answer:
    """One generated answer. ``tokens``: without the end token. ``complete``: whether it ended by itself.
    ``cut``: whether it was ended because its beginning matches the request's ``cut_at``.
    ``likelihoods``: log-likelihoods in nats of the request's given answers."""

    tokens: list[int] = field(default_factory=list)
    text: str = ""
    complete: bool = False
    cut: bool = False
    likelihoods: list[float] = field(default_factory=list)
    likeliest: tuple[tuple[int, float], ...] = ()
    """The likeliest first tokens with their log-probabilities, as many as the request's ``top_logprobs``."""
    scored: list[tuple[str, float]] = field(default_factory=list)
    """For a request that wants log-probabilities: the text and log-probability of each of ``tokens``."""


class Writer:
    """Answers prompts on one runner, one batch after another, all with the same adapter.

    An answer depends on its batch and on the prefix set by ``share``, but not on earlier batches.
    """

    def __init__(self, runner: Runner, adapter: Adapter | None = None) -> None:
        self._runner = runner
        self._adapter = adapter
        self._shared: list[int] = []
        self._room = (0, 0, 0)
        self._answers: dict[Generation, Answer] = {}

    def share(self, prompts: Sequence[Sequence[int]]) -> int:
        """Prefill the common prefix of ``prompts`` once, for all later batches; return its length in
        tokens."""
        self._shared, self._room = [], (0, 0, 0)
        if len(prompts) > 1:
            # The prefix leaves each prompt at least one token to prefill, since its logits are needed.
            length = min(common(prompts[0], other[:-1]) for other in prompts)
            self._shared = list(prompts[0][: length if length >= WORTH_COPYING else 0])
        return len(self._shared)

    def answer(self, requests: Sequence[Generation]) -> list[Answer]:
        """Answer ``requests`` as one batch. They must use this writer's adapter. An answer that cannot be
        continued under its grammar stays incomplete."""
        self._make_room(requests)
        self._answers = {request: Answer() for request in requests}
        waiting = iter(requests)
        while True:
            self._lane.work(lambda: next(waiting, None))
            if not self._lane.running:
                break
        for request, answer in self._answers.items():
            answer.likelihoods = request.likelihoods
        return list(self._answers.values())

    def _make_room(self, requests: Sequence[Generation]) -> None:
        tokens = max(len(request.prompt) + request.max_tokens for request in requests)
        spare = max(sum(map(len, request.answers)) for request in requests)
        wanted = (len(requests), tokens, spare)
        if all(want <= have for want, have in zip(wanted, self._room, strict=True)):
            return
        # Round up to powers of two, since later batches have longer prompts.
        tokens, spare = (1 << (size - 1).bit_length() for size in (tokens, spare))
        self._room = rows, tokens, spare = len(requests), tokens, spare
        self._runner.reserve(rows=rows, tokens=tokens, spare=spare, kept=1)
        self._lane = Lane(
            self._runner, rows=rows, prefill_tokens=sys.maxsize, deliver=self._note, remember=False
        )
        if self._shared:
            self._lane.read_ahead(self._shared, self._adapter.weights if self._adapter else None)

    def _note(self, request: Generation, progress: Progress | GrammarBroken) -> None:
        if isinstance(progress, GrammarBroken):
            return
        answer = self._answers[request]
        answer.text += progress.text
        answer.complete = progress.finish_reason == "stop"
        answer.likeliest = answer.likeliest or progress.token.likeliest
        if progress.stopped_by != "eos" or progress.token.text:  # A grammar may end with a token of text.
            answer.tokens.append(progress.token.id)
            if progress.token.logprob is not None:
                answer.scored.append((progress.token.text, progress.token.logprob))
        if request.cut_at and progress.finish_reason is None and re.match(request.cut_at, answer.text):
            answer.cut = True
            request.cancel()
