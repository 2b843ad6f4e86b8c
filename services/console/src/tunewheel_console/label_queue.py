"""One request for labels with its prompts, and what people have said of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Literal

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import LabelsRequested
from tunewheel_contracts.fields import Frozen, Sha256, SourceId, Timestamp
from tunewheel_contracts.formats.drift_spec import LabelsSpec
from tunewheel_contracts.formats.label_prompts import LabelPrompt
from tunewheel_runtime.refusals import Refused

State = Literal["open", "answered", "out_of_scope", "settled", "erased"]


class Mark(Frozen):
    """The latest state of one prompt: ``labels/<project>/<request_id>/<hash of the completion>.json``."""

    completion_id: SourceId
    state: Literal["answered", "out_of_scope"]
    by: SourceId
    at: Timestamp


class Opinion(Frozen):
    """One person's answer to a prompt that needs two:
    ``labels/<project>/<request_id>.opinions/<hash of completion and person>.json``."""

    completion_id: SourceId
    by: SourceId
    label: Sha256
    """Hash of the label, or of "out of scope"."""
    at: Timestamp | None = None
    """When the person gave it. None: an earlier release wrote the opinion."""


@dataclass(frozen=True, slots=True)
class LabelQueue:
    """One request with its prompts, numbered from 1. A later revision appends prompts. An erased prompt
    leaves a gap in the numbers."""

    request: Envelope[LabelsRequested]
    items: tuple[LabelPrompt, ...]
    marks: dict[str, Mark]
    """The marks by completion id."""
    answered: frozenset[str]
    """Completions that experts answered elsewhere."""
    outside: frozenset[str]
    """Completions that experts called out of scope elsewhere."""
    opinions: tuple[Opinion, ...]
    settled: frozenset[str]
    """Completions of topics that have enough answers."""
    spec: LabelsSpec
    outcome: str | None
    """Why the labels are not needed any more; None while they are needed."""
    asks_on: bool = False
    """Whether settled prompts are open (``counted``)."""

    def state_of(self, item: LabelPrompt) -> State:
        if item.is_erased:
            return "erased"
        mark = self.marks.get(item.completion_id)
        if mark is not None:
            return mark.state
        if item.completion_id in self.answered:
            return "answered"
        if item.completion_id in self.outside:
            return "out_of_scope"
        is_settled = item.completion_id in self.settled and not self.asks_on
        return "settled" if is_settled else "open"

    def labels_of(self, item: LabelPrompt) -> dict[str, str]:
        """Return the hash of the label that each person gave to a prompt."""
        return {one.by: one.label for one in self.opinions if one.completion_id == item.completion_id}

    @property
    def counts(self) -> Counter[str]:
        """Return the number of prompts in each state."""
        return Counter[str](self.state_of(item) for item in self.items)

    def counted(self) -> LabelQueue:
        """Return the queue with its settled prompts open, if none other is open and answers are wanted yet:
        otherwise the turn would wait for answers that nobody is asked for."""
        counts = replace(self, asks_on=False).counts
        is_short = counts["answered"] < self.request.data.wanted
        return replace(self, asks_on=is_short and not counts["open"])

    def next_after(self, number: int, person: str | None = None) -> int | None:
        """Return the next open prompt after ``number``, continuing from the beginning: first those that are
        assigned to ``person``, and none that has the person's opinion. None: all are done."""
        numbers = [
            n
            for n, item in enumerate(self.items, 1)
            if self.state_of(item) == "open" and person not in self.labels_of(item)
        ]
        names = {person, (person or "").partition(" (")[0]}  # assignees are named without their issuer too
        own = [n for n in numbers if not names.isdisjoint(self.spec.people_for(n))] or numbers
        return next((n for n in own if n > number), own[0] if own else None)

    def item(self, number: int) -> LabelPrompt:
        """Return a prompt. Raises Refused if the number does not exist or its text was erased."""
        if not 1 <= number <= len(self.items):
            reason = f"{number} does not exist; there are 1 to {len(self.items)}"
            raise Refused(HTTPStatus.NOT_FOUND, "item", reason)
        item = self.items[number - 1]
        if item.is_erased:
            raise Refused(HTTPStatus.GONE, "item", f"{number} was erased; go on with the next")
        return item

    def check(self, number: int, given_at: datetime | None, person: str) -> None:
        """Raise Refused if an answer of ``given_at`` would replace a later one, or one from elsewhere, or a
        later opinion of the same ``person``. None: the answer is given now."""
        if given_at is None:
            return
        item = self.item(number)
        mark = self.marks.get(item.completion_id)
        if given_at > datetime.now(UTC):
            raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "answered_at", "lies in the future; leave it out")
        own = (one for one in self.opinions if (one.completion_id, one.by) == (item.completion_id, person))
        at = mark.at if mark else next((one.at for one in own), None)
        if at > given_at if at else self.state_of(item) in ("answered", "out_of_scope"):
            since = f"at {at:%Y-%m-%d %H:%M} UTC" if at else "elsewhere"
            reason = (
                f"is before the answer that item {number} has: it was answered {since}; that answer stays"
            )
            raise Refused(HTTPStatus.CONFLICT, "answered_at", reason)
