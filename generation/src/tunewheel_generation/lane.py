"""A lane: the running batch on one form of the base, or on a whole model. Requests join and leave between
steps."""

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
"""Most prompt tokens in one forward pass, padding included."""
WORTH_COPYING = 8
"""Fewest tokens of a common prefix for which a request waits until another request has prefilled them."""
WORTH_A_READING = 64
"""Fewest tokens, over all requests, that must be saved to justify one more forward pass."""


@dataclass
class Row:
    """A request in the batch. ``length``: how many of its tokens are in the cache. The last generated token
    is not in the cache yet."""

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

    Row i of the cache holds the i-th running request. Behind these lie the joining requests, whose prompts
    are being prefilled. ``prefill_tokens``: most prompt tokens that are prefilled between two steps.
    ``remember``: whether the cache rows of finished requests are kept, for later requests with the same
    beginning.
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
        """Drop cancelled requests, prefill joining ones, and make one step of the batch."""
        self._drop_cancelled()
        self._join(next_request)
        if self._rows:
            self._step()

    def read_ahead(self, tokens: Sequence[int], weights: LoraWeights | None) -> None:
        """Prefill ``tokens``, with which later requests begin, and keep them. No request may be running."""
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
        """Remove a row. The last row moves to its place, so that the batch has no gaps."""
        self._keep(self._rows[at], at)
        last = self._rows.pop()
        if at < len(self._rows):
            self._runner.move(len(self._rows), at, last.length)
            self._rows[at] = last
        if self._joining:  # The last joining row moves into the gap before the joining rows.
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
        """Keep the cache of ``row``: the next request of its conversation begins with the same tokens."""
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
            del self._joining[: len(done)]  # Only the last of ``rows`` may have prompt tokens left.
            if done:
                self._begin(done, logits[: len(done)])

    def _readable(self, tokens: int) -> list[Row]:
        """Return the joining rows that are prefilled next, together, in order of arrival: about ``tokens``
        tokens, padding included."""
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
        """Copy common prefixes, prefilled earlier for the same adapter, into the joining rows.

        Requests share a system prompt, and requests of a conversation its earlier turns. Prefilling these
        costs more than generating the answer. At least one token is left to prefill, since its logits are
        needed.
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
        """Yield the prefilled tokens in the cache, with their adapter and their row."""
        for at, row in enumerate([*self._rows, *self._joining]):
            if row.length:
                yield _weights(row), row.generation.prompt[: row.length], at
        yield from self._kept

    def _leaders(self) -> int:
        """Return how many joining rows, from the first on, are prefilled now. The others wait, because they
        share a prefix with these and can then copy it.

        All rows are prefilled at once if waiting would save too little, or if finished rows are not kept.
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
        """Move ``rows``, whose prompts are prefilled, from the joining to the running rows."""
        before = len(self._rows)
        self._rows += rows
        self._weigh(rows, logits, first=before)
        writing = [at for at, row in enumerate(rows) if row.generation.max_tokens > 0]
        finished = [True] * len(rows)
        if writing:
            results = self._advance([rows[at] for at in writing], logits[writing])
            for at, done in zip(writing, results, strict=True):
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
        """Choose and deliver one token for each row; return which rows are finished."""
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
