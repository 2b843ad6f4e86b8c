"""The running batch on one form of the base model: requests join and leave between its steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunewheel_basemodel.detokenizing import Detokenizer
from tunewheel_basemodel.sampling import Sampler, choose_tokens, likeliest, logprobs_of

from tunewheel_generation.constraint import GrammarBroken
from tunewheel_generation.generation import Generation, Progress, Token
from tunewheel_generation.prefix_cache import PrefixCache, common
from tunewheel_generation.stopping import StopMatcher

if TYPE_CHECKING:
    import torch

    from tunewheel_generation.constraint import GrammarConstraint
    from tunewheel_generation.lora import LoraWeights
    from tunewheel_generation.runner import Runner

Deliver = Callable[[Generation, Progress | GrammarBroken], None]


@dataclass
class Row:
    """A request in the batch. ``length`` of its tokens are in the cache; the last one is not yet."""

    generation: Generation
    sampler: Sampler
    detokenizer: Detokenizer
    stops: StopMatcher
    constraint: GrammarConstraint | None = None
    length: int = 0
    generated: list[int] = field(default_factory=list)

    @property
    def last(self) -> int:
        return self.generated[-1]


class Lane:
    """A batch of up to ``rows`` requests on one runner."""

    def __init__(self, runner: Runner, *, rows: int, prefill_tokens: int, deliver: Deliver) -> None:
        self._runner = runner
        self._max_rows = rows
        self._prefill_tokens = prefill_tokens
        self._deliver = deliver
        self._rows: list[Row] = []
        self._joining: Row | None = None
        self._staged: tuple[LoraWeights | None, list[int]] = (None, [])
        self._kept = PrefixCache(runner.kept)
        self._special = frozenset(runner.tokenizer.all_special_ids)

    @property
    def running(self) -> int:
        return len(self._rows) + (self._joining is not None)

    @property
    def has_room(self) -> bool:
        return self._joining is None and len(self._rows) < self._max_rows

    def work(self, next_request: Callable[[], Generation | None]) -> None:
        """Drop who left, read prompts of who joins, and make one step of the batch."""
        self._drop_cancelled()
        self._join(next_request)
        if self._rows:
            self._step()

    def _drop_cancelled(self) -> None:
        if self._joining is not None and self._joining.generation.cancelled:
            self._joining = None
        for at in reversed(range(len(self._rows))):
            if self._rows[at].generation.cancelled:
                self._remove(at)

    def _remove(self, at: int) -> None:
        """Take a row out; the last one takes its place, so that the batch has no gaps."""
        self._keep(self._rows[at], at)
        last = self._rows.pop()
        if at < len(self._rows):
            self._runner.replace(at, len(self._rows), last.length)
            self._rows[at] = last

    def _keep(self, row: Row, at: int | None) -> None:
        """Keep what ``row`` read and wrote: the next question of its conversation begins with it."""
        tokens = (row.generation.prompt + row.generated)[: row.length]
        self._runner.keep(at, self._kept.replace(_weights(row), tokens), row.length)

    def _join(self, next_request: Callable[[], Generation | None]) -> None:
        budget = self._prefill_tokens
        while budget > 0:
            if self._joining is None:
                generation = next_request() if self.has_room else None
                if generation is None:
                    return
                self._joining = self._new_row(generation)
                self._joining.length = self._reuse(self._joining)
            row = self._joining
            chunk = row.generation.prompt[row.length : row.length + budget]
            logits = self._runner.read(chunk, row.length, _weights(row))
            row.length += len(chunk)
            budget -= len(chunk)
            self._staged = (_weights(row), row.generation.prompt[: row.length])
            if row.length == len(row.generation.prompt):
                self._joining = None
                self._begin(row, logits)

    def _reuse(self, row: Row) -> int:
        """Bring what another request read before for the same adapter into the staging row; tells how much.

        Requests share their system prompt, and a conversation its earlier turns; reading them costs more than
        answering. At least one token is left to read, for what comes after it.
        """
        prompt, weights = row.generation.prompt, _weights(row)
        most, source = 0, None
        rows = [(_weights(other), other.generation.prompt, at) for at, other in enumerate(self._rows)]
        for weights_of, tokens_of, at in [(*self._staged, None), *rows, *self._kept]:
            if weights_of is weights and (shared := common(prompt, tokens_of)) > most:
                most, source = shared, at
        most = min(most, len(prompt) - 1)
        if source is not None:
            self._runner.stage(source, most)
            self._kept.touch(source)
        return most

    def _new_row(self, generation: Generation) -> Row:
        constraint = generation.grammar.start() if generation.grammar else None
        return Row(
            generation=generation,
            sampler=Sampler(
                generation.sampling, self._runner.device, prompt=generation.prompt, constraint=constraint
            ),
            constraint=constraint,
            detokenizer=Detokenizer(self._runner.tokenizer),
            stops=StopMatcher(generation.stops, include=generation.include_stop),
        )

    def _begin(self, row: Row, logits: torch.Tensor) -> None:
        if self._advance([row], logits)[0]:
            self._keep(row, None)
        else:
            self._runner.admit(len(self._rows), row.length)
            self._rows.append(row)

    def _step(self) -> None:
        rows = self._rows
        logits = self._runner.step(
            [row.last for row in rows], [row.length for row in rows], [_weights(row) for row in rows]
        )
        for row in rows:
            row.length += 1
        finished = self._advance(rows, logits)
        for at in reversed(range(len(finished))):
            if finished[at]:
                self._remove(at)

    def _advance(self, rows: list[Row], logits: torch.Tensor) -> list[bool]:
        """Choose and hand out one token for each row; tells which rows are done."""
        tokens = choose_tokens(logits, [row.sampler for row in rows])
        wants = any(row.generation.want_logprobs for row in rows)
        logprobs: list[float] | list[None] = logprobs_of(logits, tokens) if wants else [None] * len(rows)
        finished = []
        for at, (row, token, logprob) in enumerate(zip(rows, tokens, logprobs, strict=True)):
            row.generated.append(token)
            if row.constraint is not None and row.constraint.failure is not None:
                self._deliver(row.generation, GrammarBroken(row.constraint.failure))
                finished.append(True)
                continue
            wanted = row.generation.top_logprobs
            best = tuple(likeliest(logits[at], wanted)) if wanted else ()
            progress = self._progress(row, token, logprob, best)
            self._deliver(row.generation, progress)
            finished.append(progress.finish_reason is not None)
        return finished

    def _progress(
        self, row: Row, token: int, logprob: float | None, best: tuple[tuple[int, float], ...]
    ) -> Progress:
        generation, ended = row.generation, row.constraint is not None and row.constraint.ended
        if token in self._runner.end_tokens and (ended or not generation.ignore_eos):
            end = Token(token, "", True, logprob, best)
            return Progress(row.stops.flush(), end, "stop", "eos")
        piece = row.detokenizer.add(token)
        made = Token(token, piece, token in self._special, logprob, best)
        text = row.stops.feed(piece)
        if row.stops.matched:
            return Progress(text, made, "stop", "string")
        if ended:
            return Progress(text + row.stops.flush(), made, "stop", "eos")
        full = row.length + 1 >= self._runner.max_tokens
        if len(row.generated) >= generation.max_tokens or full:
            return Progress(text + row.stops.flush(), made, "length")
        return Progress(text, made)


def _weights(row: Row) -> LoraWeights | None:
    return row.generation.adapter.weights if row.generation.adapter else None
