"""One pass over the items of a file: counts, and a sample of bounded size for all that costs more."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ExamplePublished, TicketPublished

from tunewheel_cli.publishing.events import EVENTS, encode, make_event
from tunewheel_cli.publishing.items import Found, FoundFile, Kind, Refusal, Source
from tunewheel_cli.surveying.shape import Shape, Values

SAMPLE = 4_000
LONGEST = 20
PLACEHOLDER = "project"
STRUCTURED = 0.95


class Thinned:
    """Every n-th of many items, so that from ``most`` to twice as many are kept."""

    def __init__(self, most: int = SAMPLE) -> None:
        self.kept: list[Any] = []
        self._every, self._seen, self._most = 1, 0, most

    def add(self, item: Any) -> None:
        if self._seen % self._every == 0:
            self.kept.append(item)
            if len(self.kept) >= 2 * self._most:
                self.kept, self._every = self.kept[::2], 2 * self._every
        self._seen += 1


@dataclass(slots=True)
class Survey:
    """What the items of some files are."""

    kinds: Counter[str] = field(default_factory=Counter)
    examples: int = 0
    """Examples, and tickets with an answer."""
    files: int = 0
    """Documents whose bytes only ingest can read."""
    refused: int = 0
    refusals: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By field and reason."""
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    """Where each refusal occurs first."""
    duplicates: int = 0
    """Examples that occur before, with the same answer."""
    contradictions: int = 0
    """Examples whose question occurs before, with another answer."""
    distinct: int = 0
    """Questions."""
    rejected: int = 0
    """Examples with an answer to avoid."""
    unvalidated: int = 0
    texts: Values = field(default_factory=Values)
    """Answers that are no JSON objects."""
    shape: Shape = field(default_factory=Shape)
    """Of answers that are JSON objects."""
    sample: Thinned = field(default_factory=Thinned)
    longest: list[tuple[int, int, Any]] = field(default_factory=list)
    _questions: dict[int, int] = field(default_factory=dict)

    @property
    def is_structured(self) -> bool:
        """Whether answers are JSON objects."""
        return self.shape.seen > 0 and self.shape.seen >= STRUCTURED * self.examples

    @property
    def conversations(self) -> list[list[dict[str, str]]]:
        """The messages of a sample of the examples."""
        return [messages for messages, _ in self.sample.kept]

    def read(self, source: Source, *, kind: Kind | None = None) -> None:
        """Count all items of ``source``. Raises what the source raises."""
        for item in source:
            if isinstance(item, FoundFile):
                self.files += 1
                self.kinds[Kind.DOCUMENT] += 1
                continue
            made = _made(item, kind)
            if isinstance(made, Refusal):
                self.refused += 1
                said = (made.field, made.reason)
                if said in self.refusals or len(self.refusals) < 1_000:
                    self.refusals[said] += 1
                    self.first.setdefault(said, made.where)
                continue
            self.kinds[_KINDS[type(made.data)]] += 1
            if (example := _answered(made.data)) is not None:
                self._add(example)

    def _add(self, example: ExamplePublished) -> None:
        self.examples += 1
        answer = _text(example.output)
        earlier = [{"role": one.role or "user", "content": one.content} for one in example.messages]
        messages = [
            *earlier,
            {"role": "user", "content": example.input},
            {"role": "assistant", "content": answer},
        ]
        question, said = hash((example.input, *(one["content"] for one in earlier))), hash(answer)
        if question in self._questions:
            same = self._questions[question] == said
            self.duplicates += same
            self.contradictions += not same
        else:
            self._questions[question] = said
            self.distinct += 1
        self.rejected += example.rejected_output is not None
        self.unvalidated += example.validated_by is None
        value = _object(example.output)
        if value is None:
            self.texts.add(answer)
        else:
            self.shape.add(value)
        self.sample.add((messages, example.input))
        size = sum(len(one["content"]) for one in messages)
        entry = (size, -self.examples, messages)
        (heapq.heappush if len(self.longest) < LONGEST else heapq.heappushpop)(self.longest, entry)


def _answered(data: Any) -> ExamplePublished | None:
    """Return the example that ``data`` is; None: it has no answer."""
    if isinstance(data, TicketPublished) and data.answer is not None:
        return ExamplePublished(
            project=data.project,
            example_id=data.ticket_id,
            input="\n\n".join(text for text in (data.subject, data.body) if text),
            messages=data.thread,
            output=data.answer,
            validated_by=data.validated_by,
        )
    return data if isinstance(data, ExamplePublished) else None


_KINDS = {event: kind for kind, event in EVENTS.items()}


def _made(item: Found | Refusal, kind: Kind | None) -> Envelope[Any] | Refusal:
    if isinstance(item, Refusal):
        return item
    project = item.fields.get("project")
    made = make_event(item, project=project if isinstance(project, str) else PLACEHOLDER, kind=kind)
    if isinstance(made, Refusal):
        return made
    record = encode(item, made)
    return record if isinstance(record, Refusal) else made


def _object(output: Any) -> Mapping[str, Any] | None:
    if isinstance(output, Mapping):
        return output
    if isinstance(output, str) and output.lstrip().startswith("{"):
        try:
            value = json.loads(output)
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None
    return None


def _text(output: Any) -> str:
    return output if isinstance(output, str) else json.dumps(output, ensure_ascii=False)


def refusals_of(survey: Survey, most: int = 10) -> Iterator[tuple[int, str, str, str]]:
    """Yield (count, where first, field, reason) of the most frequent refusals."""
    for (name, reason), count in survey.refusals.most_common(most):
        yield count, survey.first[name, reason], name, reason
