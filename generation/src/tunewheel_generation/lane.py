"""The running batch on a form of the base, or on a whole model: requests join and leave between its steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
READ_AT_ONCE = 2048
"""Tokens of prompts that one forward pass reads, padding included."""
WORTH_COPYING = 8
"""Tokens of another prompt's beginning that are worth waiting for."""
WORTH_A_READING = 64
"""Tokens that must be saved for one reading more, which passes over all weights once."""


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
    """A batch of up to ``rows`` requests on one runner.

    Row i of the cache holds the i-th running request; those whose prompts are being read lie behind them.
    ``prefill_tokens``: how many tokens of prompts are read between two steps. ``remember`` keeps what
    requests read and wrote, for later ones that begin alike.
    """

    def __init__(
        self, runner: Runner, *, rows: int, prefill_tokens: int, deliver: Deliver, remember: bool = True
    ) -> None:
        self._runner = runner
        self._max_rows = rows
        self._prefill_tokens = prefill_tokens
        self._deliver = deliver
        self._remember = remember
        self._rows: list[Row] = []
        self._joining: list[Row] = []
        self._kept = PrefixCache(runner.kept)
        self._special = frozenset(runner.tokenizer.all_special_ids)

    @property
    def running(self) -> int:
        return len(self._rows) + len(self._joining)

    @property
    def has_room(self) -> bool:
        return self.running < self._max_rows

    def work(self, next_request: Callable[[], Generation | None]) -> None:
        """Drop who left, read prompts of who joins, and make one step of the batch."""
        self._drop_cancelled()
        self._join(next_request)
        if self._rows:
            self._step()

    def read_ahead(self, tokens: Sequence[int], weights: LoraWeights | None) -> None:
        """Read what later requests begin with, and keep it. No request may be under way."""
        for start in range(0, len(tokens), READ_AT_ONCE):
            self._runner.read([tokens[start : start + READ_AT_ONCE]], [start], [weights])
        kept, held = self._kept.replace(weights, list(tokens))
        self._runner.move(0, kept, len(tokens), start=held)

    def _drop_cancelled(self) -> None:
        for at in reversed(range(len(self._joining))):
            if self._joining[at].generation.cancelled:
                self._remove_joining(at)
        for at in reversed(range(len(self._rows))):
            if self._rows[at].generation.cancelled:
                self._remove(at)

    def _remove(self, at: int) -> None:
        """Take a row out; the last one takes its place, so that the batch has no gaps."""
        self._keep(self._rows[at], at)
        last = self._rows.pop()
        if at < len(self._rows):
            self._runner.move(len(self._rows), at, last.length)
            self._rows[at] = last
        if self._joining:  # the last of these closes the gap before them
            moved = self._joining.pop()
            self._runner.move(len(self._rows) + len(self._joining) + 1, len(self._rows), moved.length)
            self._joining.insert(0, moved)

    def _remove_joining(self, at: int) -> None:
        last = self._joining.pop()
        if at < len(self._joining):
            before = len(self._rows)
            self._runner.move(before + len(self._joining), before + at, last.length)
            self._joining[at] = last

    def _keep(self, row: Row, at: int) -> None:
        """Keep what ``row`` read and wrote: the next question of its conversation begins with it."""
        if self._remember:
            tokens = (row.generation.prompt + row.generated)[: row.length]
            kept, held = self._kept.replace(_weights(row), tokens)
            self._runner.move(at, kept, row.length, start=held)

    def _join(self, next_request: Callable[[], Generation | None]) -> None:
        budget = self._prefill_tokens
        while budget > 0:
            while self.has_room and (generation := next_request()) is not None:
                self._joining.append(self._new_row(generation))
            if not self._joining:
                return
            rows = self._readable(min(budget, READ_AT_ONCE))
            chunks = [row.generation.prompt[row.length : row.length + budget] for row in rows]
            chunks = [chunk[:READ_AT_ONCE] for chunk in chunks]
            logits = self._runner.read(
                chunks, [row.length for row in rows], [_weights(row) for row in rows], first=len(self._rows)
            )
            budget -= sum(map(len, chunks))
            for row, chunk in zip(rows, chunks, strict=True):
                row.length += len(chunk)
            done = [row for row in rows if row.length == len(row.generation.prompt)]
            del self._joining[: len(done)]  # only the last of ``rows`` may have more to read
            if done:
                self._begin(done, logits[: len(done)])

    def _readable(self, tokens: int) -> list[Row]:
        """Those who are read next, together: first come, first served, and about ``tokens`` tokens, padding
        included."""
        self._reuse()
        rows: list[Row] = []
        widest = 0
        for row in self._joining[: self._leaders()]:
            left = len(row.generation.prompt) - row.length
            widest = max(widest, left)
            if rows and widest * (len(rows) + 1) > tokens:
                break
            rows.append(row)
        return rows

    def _reuse(self) -> None:
        """Bring what was read before for the same adapter into the rows of the joining.

        Requests share their system prompt, and a conversation its earlier turns; reading them costs more than
        answering. At least one token is left to read, for what comes after it.
        """
        for at, row in enumerate(self._joining, len(self._rows)):
            prompt, weights = row.generation.prompt, _weights(row)
            most, source = row.length, at
            for weights_of, tokens_of, holder in self._known():
                if weights_of is weights and (shared := common(prompt, tokens_of)) > most:
                    most, source = min(shared, len(prompt) - 1), holder
            if source != at:
                self._runner.move(source, at, most, start=row.length)
                self._kept.touch(source)
                row.length = most

    def _known(self) -> Iterator[tuple[LoraWeights | None, Sequence[int], int]]:
        """What was read, for which adapter, and the row of the cache that holds it."""
        for at, row in enumerate([*self._rows, *self._joining]):
            if row.length:
                yield _weights(row), row.generation.prompt[: row.length], at
        yield from self._kept

    def _leaders(self) -> int:
        """How many of the joining, from the first on, are read before the others because those begin alike.

        All of them, unless reading less is worth a reading more, or nothing would stay of who is read first.
        """
        if not self._remember:
            return len(self._joining)
        first, saved = len(self._joining), 0
        for at, row in enumerate(self._joining):
            prompt, weights = row.generation.prompt, _weights(row)
            before = [other.generation.prompt for other in self._joining[:at] if _weights(other) is weights]
            most = min(max((common(prompt, other) for other in before), default=0), len(prompt) - 1)
            if most - row.length >= WORTH_COPYING:
                first, saved = min(first, at), saved + most - row.length
        return first if saved >= WORTH_A_READING else len(self._joining)

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

    def _begin(self, rows: list[Row], logits: torch.Tensor) -> None:
        """Let ``rows``, which were just read, join the running ones behind which they lie."""
        before = len(self._rows)
        self._rows += rows
        self._weigh(rows, logits, first=before)
        writing = [at for at, row in enumerate(rows) if row.generation.max_tokens > 0]
        finished = [True] * len(rows)
        if writing:
            told = self._advance([rows[at] for at in writing], logits[writing])
            for at, done in zip(writing, told, strict=True):
                finished[at] = done
        self._remove_finished(finished, first=before)

    def _weigh(self, rows: list[Row], logits: torch.Tensor, *, first: int) -> None:
        if not any(row.generation.answers for row in rows):
            return
        weighed = self._runner.weigh(
            [row.generation.answers for row in rows],
            [row.length for row in rows],
            logits,
            [_weights(row) for row in rows],
            first=first,
        )
        for row, likelihoods in zip(rows, weighed, strict=True):
            row.generation.likelihoods = likelihoods

    def _step(self) -> None:
        rows = self._rows
        logits = self._runner.read(
            [[row.last] for row in rows], [row.length for row in rows], [_weights(row) for row in rows]
        )
        for row in rows:
            row.length += 1
        self._remove_finished(self._advance(rows, logits), first=0)

    def _remove_finished(self, finished: list[bool], *, first: int) -> None:
        for at in reversed(range(len(finished))):
            if finished[at]:
                self._remove(first + at)

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
