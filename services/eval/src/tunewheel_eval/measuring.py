"""Measures contestants: generates on the holdout, computes the likelihood of the experts' answers, and asks
the regression set."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tunewheel_basemodel.detokenizing import TokenBytes
from tunewheel_contracts.fields import JsonObject
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.fingerprint import NextToken, NextTokens
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_outputs.confidence import confidence_of, label_probability

from tunewheel_eval.answering import Batch, Part, answered
from tunewheel_eval.contestants import LoadedGroup, groups
from tunewheel_eval.errors import NoNumber, UnfitCandidate
from tunewheel_eval.harness import ask
from tunewheel_eval.job import ContestantJob, Job, Progress
from tunewheel_eval.measurement import (
    FINGERPRINT,
    FingerprintRow,
    Header,
    HoldoutRow,
    RegressionRow,
    RepeatRow,
    Row,
    RowFile,
    SkippedRow,
    example_key,
    read_existing,
)
from tunewheel_eval.prompts import (
    Prompt,
    example_prompt,
    fingerprint_prompt,
    fitting_prompt,
    item_prompt,
    sampling_of,
    too_long,
    unanswered,
)

if TYPE_CHECKING:
    from tunewheel_generation.constraint import Grammar, Grammars
    from tunewheel_generation.generation import Adapter
    from tunewheel_generation.offline import Answer
    from tunewheel_generation.runner import Runner

Report = Callable[[Progress], None]
Finish = Callable[[Prompt, "Answer"], Row]

_BATCH_TOKENS = 32_768
"""The most positions in a batch, so that the keys and values of long prompts fit into memory."""


def measure(job: Job, report: Report) -> None:
    """Complete the row file of every contestant, and report after each batch. Items that cannot be measured
    are recorded as skipped. Raises UnfitCandidate: the candidate or its base cannot be measured."""
    import torch
    from tunewheel_basemodel.chat import with_variables

    threads = job.threads or torch.get_num_threads()
    torch.set_num_threads(1)  # so that ``answered`` can fork
    dtype = job.dtype
    for group in groups(job.contestants):
        works = [_Work(job, one, dtype, report) for one in group]
        open_work = [work for work in works if work.pending]
        for work in works:
            if not work.pending:
                work.tell()
        if not open_work:
            continue
        loaded = LoadedGroup([work.contestant for work in open_work], cache_dir=job.cache_dir, dtype=dtype)
        template = job.task.chat_template_kwargs if job.task else {}
        loaded.runner.tokenizer = with_variables(loaded.runner.tokenizer, template)
        adapters = {work: loaded.adapters[work.contestant.role] for work in open_work}
        asked = [
            (work, finish, batch)
            for work in open_work
            for finish, batch in work.batches(loaded.runner, adapters[work])
        ]
        for number, answers in answered(loaded.runner, [batch for *_, batch in asked], threads=threads):
            work, finish, batch = asked[number]
            work.take(batch, answers, finish)
        if job.lm_eval:
            torch.set_num_threads(threads)
            for work in open_work:
                work.ask_harness(loaded.runner, adapters[work])
        loaded.close()


class _Work:
    """The remaining work for one contestant."""

    def __init__(self, job: Job, contestant: ContestantJob, dtype: str, report: Report) -> None:
        self.contestant = contestant
        self._job, self._report, self._started = job, report, time.monotonic()
        header = Header(model_key=contestant.model_key, dtype=dtype, cut=bool(contestant.cut_at))
        others = () if contestant.role is Role.CHAMPION else job.others
        if contestant.role is Role.BASE:
            others = (*others, *job.prompted)
        self._examples = {
            example_key(one, max_output_tokens=job.max_output_tokens): one for one in (*job.examples, *others)
        }
        self._items = {item.key: item for item in job.items}
        is_candidate = contestant.role is Role.CANDIDATE
        self._other_mode = job.other_mode if is_candidate else {}
        self._repeats = {**job.repeats, **self._other_mode} if is_candidate else {}
        self._fingerprint = FINGERPRINT if is_candidate else {}
        questions = [key for task in job.lm_eval for key in task.keys]
        wanted = [*self._examples, *self._items, *self._repeats, *self._fingerprint, *questions]
        self._file = RowFile(contestant.rows, header)
        self._seed(header, wanted)
        self.pending = [key for key in wanted if key not in self._seeded and key not in self._file.rows]
        self._total = len(wanted)

    def _seed(self, header: Header, wanted: Sequence[str]) -> None:
        self._seeded: set[str] = set()
        for path in self.contestant.seeds:
            if (found := read_existing(path, header)) is not None:
                self._seeded.update(found.only(wanted).rows)
                fresh = [row for key, row in found.only(wanted).rows.items() if key not in self._file.rows]
                self._file.add(fresh)

    def batches(self, runner: Runner, adapter: Adapter | None) -> Iterator[tuple[Finish, Batch]]:
        """Yield the batches that are not measured yet, and what makes rows of their answers. Record prompts
        that are too long as skipped."""
        from tunewheel_generation.constraint import Grammars

        for every, finish in self._parts(runner, Grammars(runner.tokenizer, runner.end_tokens)):
            skipped = {
                one.key: one for prompt in every if (one := too_long(prompt, runner.longest)) is not None
            }
            self._skip([*skipped.values()])
            part = Part([prompt for prompt in every if prompt.key not in skipped], adapter)
            for batch in _batches(part.prompts, self._job.batch_size):
                # A batch is measured whole or not at all: its composition influences the last bits.
                if not self._file.holds([prompt.key for prompt in batch]):
                    yield finish, Batch(part, batch)

    def take(self, batch: Batch, answers: Sequence[Answer], finish: Finish) -> None:
        """Write the rows of a batch, and report."""
        with self._computing():
            rows = [finish(*one) for one in zip(batch.prompts, answers, strict=True)]
        self._file.add(rows)
        self.tell()

    def ask_harness(self, runner: Runner, adapter: Adapter | None) -> None:
        """Ask the tasks of lm-evaluation-harness."""
        with self._computing(), runner.lent(adapter.weights if adapter else None) as model:
            for task in self._job.lm_eval:
                keys = [key for key in task.keys if key not in self._seeded]
                size = self._job.batch_size
                for rows in ask(task, keys, model, runner.tokenizer, batch_size=size, holds=self._file.holds):
                    self._file.add(rows)
                    self.tell()

    def _skip(self, rows: Sequence[SkippedRow]) -> None:
        fresh = [row for row in rows if not self._file.holds([row.key])]
        if fresh:
            self._file.add(fresh)
            self.tell()

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """Turn ``NoNumber`` in the block into an error that names the contestant."""
        try:
            yield
        except NoNumber as error:
            role = self.contestant.role
            if role is not Role.CANDIDATE:
                raise NoNumber(f"the {role.value}'s weights do not compute: {error}") from error
            reason = f"{error}: its weights diverged; train again with a lower learning rate"
            raise UnfitCandidate(field="adapter.files", reason=reason) from error

    def _parts(self, runner: Runner, grammars: Grammars) -> Iterator[tuple[list[Prompt], Finish]]:
        """Yield the prompts of holdout, choices and short answers, without rows that were copied. Only
        answers to held-out prompts are constrained."""
        examples = {key: one for key, one in self._examples.items() if key not in self._seeded}
        silent = {key: row for key, one in examples.items() if (row := unanswered(one, key=key)) is not None}
        self._skip([*silent.values()])
        examples = {key: one for key, one in examples.items() if key not in silent}
        if examples:
            decoding = self._job.decoding
            grammar = _grammar(grammars, self.contestant.constraint)
            prompts = [
                replace(
                    self._prompt(runner, key, one),
                    sampling=sampling_of(decoding, key=key),
                    cut_at=self.contestant.cut_at,
                    grammar=grammar,
                    want_logprobs=self._weighs_labels,
                )
                for key, one in examples.items()
            ]
            yield prompts, self._holdout_row
        again = {key: keys for key, keys in self._repeats.items() if key not in self._seeded}
        if again:
            yield from self._again(runner, again, grammars)
        for chosen in (True, False):
            items = [
                item
                for key, item in self._items.items()
                if key not in self._seeded and bool(item.choices) is chosen
            ]
            if items:
                yield [item_prompt(runner.tokenizer, item) for item in items], self._regression_row
        names = {key: name for key, name in self._fingerprint.items() if key not in self._seeded}
        made = [fingerprint_prompt(runner.tokenizer, name, key=key) for key, name in names.items()]
        self._skip([one for one in made if isinstance(one, SkippedRow)])
        if asked := [one for one in made if isinstance(one, Prompt)]:
            yield asked, partial(fingerprint_row, TokenBytes(runner.tokenizer))

    def _again(
        self, runner: Runner, again: Mapping[str, tuple[str, int]], grammars: Grammars
    ) -> Iterator[tuple[list[Prompt], Finish]]:
        """Yield the prompts that are answered again, each with a seed of its own."""
        usual = _grammar(grammars, self.contestant.constraint)
        other = _grammar(grammars, self._job.other_constraint)
        prompts: list[Prompt] = []
        for key, (of, number) in again.items():
            if (silent := unanswered(self._examples[of], key=key)) is not None:
                self._skip([silent])
                continue
            prompt = self._prompt(runner, of, self._examples[of])
            sampling = sampling_of(self._job.decoding, key=key, repeat=number)
            grammar = other if key in self._other_mode else usual
            prompts.append(replace(prompt, key=key, answers=(), sampling=sampling, grammar=grammar))
        yield prompts, self._repeat_row

    def _prompt(self, runner: Runner, key: str, example: ChatExample) -> Prompt:
        """Return the prompt of ``example``, whose row has ``key``. Passages are written as the gateway
        would."""
        job, tokenizer = self._job, runner.tokenizer
        asked = job.with_passages.get(key)
        if asked is None or job.retrieval is None:
            return example_prompt(tokenizer, example, key=key, max_output_tokens=job.max_output_tokens)
        return fitting_prompt(
            tokenizer,
            asked,
            job.retrieval,
            key=key,
            max_output_tokens=job.max_output_tokens,
            longest=runner.longest,
        )

    def _of(self, key: str) -> str | None:
        """Return the key of the example in its dataset; None: it is ``key`` itself."""
        asked = self._job.with_passages.get(key)
        if asked is None:
            return None
        return example_key(asked.example, max_output_tokens=self._job.max_output_tokens)

    def _holdout_row(self, prompt: Prompt, answer: Answer) -> Row:
        if not math.isfinite(answer.likelihoods[0]):
            raise NoNumber(f"{prompt.name} has an answer whose log-likelihood is {answer.likelihoods[0]}")
        output = answer.text
        if answer.cut and prompt.grammar is not None and (label := re.match(prompt.cut_at, output)):
            output = label[0] + "}"  # Closed, so that the label can be read. A comma may have come with it.
        return HoldoutRow(
            key=prompt.key,
            output=output,
            complete=answer.complete,
            cut=answer.cut,
            nll=-answer.likelihoods[0],
            tokens=len(prompt.answers[0]),
            sure=self._sure(answer),
            of=self._of(prompt.key),
            shown=_shown(prompt),
        )

    @property
    def _weighs_labels(self) -> bool:
        """Whether the contestant's confidence in its labels is measured: the candidate may serve."""
        task = self._job.task
        return self.contestant.role is Role.CANDIDATE and task is not None and task.has_labels

    def _sure(self, answer: Answer) -> float | None:
        if not self._weighs_labels:
            return None
        scored = [(text.encode(), value) for text, value in answer.scored]
        return label_probability(confidence_of(answer.text, scored, self._job.task)) or 0.0

    def _repeat_row(self, prompt: Prompt, answer: Answer) -> Row:
        of = self._of(self._repeats[prompt.key][0])
        return RepeatRow(
            key=prompt.key, output=answer.text, complete=answer.complete, of=of, shown=_shown(prompt)
        )

    def _regression_row(self, prompt: Prompt, answer: Answer) -> Row:
        item = self._items[prompt.key]
        said = _likeliest(item, answer.likelihoods) if item.choices else answer.text
        return RegressionRow(key=prompt.key, output=said, correct=item.is_right(said))

    def tell(self) -> None:
        """Report this contestant's progress."""
        seconds = round(time.monotonic() - self._started, 2)
        done = len(self._file.rows)
        self._report(Progress(role=self.contestant.role, done=done, total=self._total, seconds=seconds))


def fingerprint_row(texts: TokenBytes, prompt: Prompt, answer: Answer) -> Row:
    likeliest = ((texts.of(token).decode(errors="replace"), logprob) for token, logprob in answer.likeliest)
    tokens = tuple(
        NextToken(text=text, logprob=round(logprob, 4))
        for text, logprob in likeliest
        if math.isfinite(logprob)
    )
    return FingerprintRow(key=prompt.key, next=NextTokens(prompt=FINGERPRINT[prompt.key], tokens=tokens))


def _grammar(grammars: Grammars, schema: JsonObject | None) -> Grammar | None:
    """Return the grammar of answers that fit ``schema``. Raises UnfitCandidate: the model's tokenizer cannot
    be constrained."""
    from tunewheel_generation.constraint import InvalidGrammar, json_grammar

    try:
        return grammars.compile(json_grammar(schema)) if schema is not None else None
    except InvalidGrammar as error:
        reason = f"cannot be kept: {error.reason}; set it to false, build another version and train on it"
        raise UnfitCandidate(field="spec.task.constrained", reason=reason) from error


def _shown(prompt: Prompt) -> tuple[str, ...]:
    return tuple(hit.passage.record_id for hit in prompt.hits)


def _likeliest(item: RegressionItem, weights: Sequence[float]) -> str:
    """Return the choice with the highest log-likelihood per byte, as in lm-evaluation-harness's
    ``acc_norm``."""
    choices = item.choices or ()
    per_byte = [weight / len(text.encode()) for text, weight in zip(choices, weights, strict=True)]
    return choices[per_byte.index(max(per_byte))]


def _batches(prompts: Sequence[Prompt], size: int) -> Iterator[list[Prompt]]:
    """Return batches of prompts with similar lengths, to reduce padding. Equal lengths are sorted by key, so
    that the order is always the same."""
    ordered = sorted(prompts, key=lambda prompt: (len(prompt.context), prompt.key))
    batch: list[Prompt] = []
    for prompt in ordered:
        longest = max(one.longest for one in (*batch, prompt))
        if batch and (len(batch) == size or longest * (len(batch) + 1) > _BATCH_TOKENS):
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch
