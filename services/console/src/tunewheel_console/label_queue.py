"""One request for labels with its prompts, what people have said of them, and the form of an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Literal

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.fields import Frozen, Sha256, SourceId, Timestamp
from tunewheel_contracts.formats.drift_spec import LabelsSpec
from tunewheel_contracts.formats.label_prompts import LabelPrompt
from tunewheel_contracts.formats.output_rules import AllowedValuesRule
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_runtime.refusals import Refused

State = Literal["open", "answered", "out_of_scope", "settled", "erased"]
ANSWERED = ("answered", "out_of_scope")


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
    order: tuple[int, ...]
    """The numbers in the order in which people are asked (``order_of``)."""
    held: frozenset[str] = frozenset()
    """Completions that other people have before them now."""
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
        """Return the open prompt that follows ``number`` in the order; after the last one comes the first, so
        that a skipped prompt comes again: first those that are assigned to ``person``, those that nobody else
        has before them, and none that has the person's opinion. None: all are done."""
        start = self.order.index(number) + 1 if number in self.order else 0
        numbers = [
            n
            for n in (*self.order[start:], *self.order[:start])
            if self.state_of(self.items[n - 1]) == "open" and person not in self.labels_of(self.items[n - 1])
        ]
        names = {person, (person or "").partition(" (")[0]}  # assignees are named without their issuer too
        own = [n for n in numbers if not names.isdisjoint(self.spec.people_for(n))] or numbers
        free = [n for n in own if self.items[n - 1].completion_id not in self.held] or own
        return next(iter(free), None)

    def before(self, number: int) -> int | None:
        """Return the prompt before ``number`` in the order; None: it is the first."""
        place = self.order.index(number) if number in self.order else 0
        shown = (n for n in reversed(self.order[:place]) if not self.items[n - 1].is_erased)
        return next(shown, None)

    def beside(self, number: int, person: str | None) -> list[int]:
        """Return the other prompts of the same topic that ``person`` may answer too."""
        own = self.item(number).completion_id
        topic = next(
            (one.completion_ids for one in self.request.data.clusters if own in one.completion_ids), ()
        )
        return [
            n
            for n, item in enumerate(self.items, 1)
            if n != number
            and item.completion_id in topic
            and self.state_of(item) == "open"
            and person not in self.labels_of(item)
        ]

    def version_of(self, item: LabelPrompt) -> str:
        """Return a text that changes whenever somebody answers a prompt; ``none``: it has no answer."""
        mark, state = self.marks.get(item.completion_id), self.state_of(item)
        return f"{mark.at.isoformat()} {mark.by}" if mark else state if state in ANSWERED else "none"

    def item(self, number: int) -> LabelPrompt:
        """Return a prompt. Raises Refused if the number does not exist or its text was erased."""
        if not 1 <= number <= len(self.items):
            reason = f"{number} does not exist; there are 1 to {len(self.items)}"
            raise Refused(HTTPStatus.NOT_FOUND, "item", reason)
        item = self.items[number - 1]
        if item.is_erased:
            raise Refused(HTTPStatus.GONE, "item", f"{number} was erased; go on with the next")
        return item

    def check_seen(self, number: int, seen: str | None) -> None:
        """Raise Refused if somebody answered a prompt after ``seen`` (``version_of``). None: replace any
        answer."""
        item = self.item(number)
        if seen in (None, self.version_of(item)):
            return
        mark = self.marks.get(item.completion_id)
        who = f"by {mark.by} at {mark.at:%H:%M} UTC" if mark else "elsewhere"
        reason = (
            f"is not the present answer: item {number} was answered {who} meanwhile; send again to replace it"
        )
        raise Refused(HTTPStatus.CONFLICT, "seen", reason)

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
        if at > given_at if at else self.state_of(item) in ANSWERED:
            since = f"at {at:%Y-%m-%d %H:%M} UTC" if at else "elsewhere"
            reason = (
                f"is before the answer that item {number} has: it was answered {since}; that answer stays"
            )
            raise Refused(HTTPStatus.CONFLICT, "answered_at", reason)


def order_of(
    items: Sequence[LabelPrompt], topics: Sequence[Sequence[str]], task: TaskSpec
) -> tuple[int, ...]:
    """Return the numbers of ``items``, those first whose model answer is likely wrong: answers that break the
    task's form, then labels that differ from the label of most answers to the same topic, then the others,
    the most typical first. ``topics``: the completion ids of each topic."""
    from tunewheel_outputs.form import AnswerForm
    from tunewheel_outputs.labels import label_of
    from tunewheel_outputs.texts import said_before

    form, labels = AnswerForm(task), {item.completion_id: label_of(item.output, task) for item in items}
    usual = dict[str, str]()
    for topic in topics:
        counts = Counter(label for name in topic if (label := labels.get(name)) is not None)
        for label, count in counts.most_common(1):
            if 2 * count > counts.total():
                usual |= dict.fromkeys(topic, label)

    def doubt(item: LabelPrompt) -> int:
        if not item.output:  # it is not known, such as that of a rating
            return 0
        if not form.is_valid(item.output, said_before(item.messages)):
            return 2
        label = labels[item.completion_id]
        return int(label is not None and label != usual.get(item.completion_id, label))

    return tuple(sorted(range(1, len(items) + 1), key=lambda n: (-doubt(items[n - 1]), n)))


Kind = Literal["choice", "text", "number", "yes_no", "json"]
WHOLE = ""
"""The name of the field that holds the whole answer."""
_KINDS: dict[Any, Kind] = {"string": "text", "number": "number", "integer": "number", "boolean": "yes_no"}
_NOT_BY_PROPERTY = {"$ref", "allOf", "anyOf", "oneOf", "not", "if", "patternProperties"}
"""Keywords of a schema with conditions that fields for its properties could not express."""


class FormField(Frozen):
    """A field of the form."""

    name: str
    """The answer's property; empty: the whole answer."""
    kind: Kind
    choices: tuple[Any, ...] = ()
    """The allowed values of a choice, as JSON."""
    required: bool = True
    description: str = ""


def fields_of(task: TaskSpec) -> tuple[FormField, ...]:
    """Return the fields of an answer, in the order of the schema's properties."""
    schema = task.output_schema
    if schema is None:
        return (_plain(task),)
    properties: Any = schema.get("properties")
    by_property = schema.get("type") == "object" and isinstance(properties, dict) and properties
    if not by_property or _NOT_BY_PROPERTY & schema.keys():
        return (FormField(name=WHOLE, kind="json"),)
    required: Any = schema.get("required", ())
    return tuple(_field(name, part, required=name in required) for name, part in properties.items())


def values_of(fields: Sequence[FormField], answer: str) -> dict[str, Any]:
    """Return the properties of ``answer``, or the answer itself as that of ``WHOLE``; none if it does not
    have the form of ``fields``."""
    from tunewheel_outputs.parsing import Unparsed, parse

    if fields[0].name == WHOLE:
        return {WHOLE: answer} if answer else {}
    try:
        value = parse(answer)
    except Unparsed:
        return {}
    return value if isinstance(value, dict) else {}


def _plain(task: TaskSpec) -> FormField:
    rules = (one for one in task.output_rules if isinstance(one, AllowedValuesRule) and one.field is None)
    rule = next(rules, None)
    return FormField(
        name=WHOLE, kind="text" if rule is None else "choice", choices=rule.values if rule else ()
    )


def _field(name: str, part: Any, *, required: bool) -> FormField:
    schema: dict[str, Any] = part if isinstance(part, dict) else {}
    about = str(schema.get("description", ""))
    choices = schema.get("enum") or ([schema["const"]] if "const" in schema else [])
    kind: Kind = "choice" if choices else _KINDS.get(str(schema.get("type")), "json")
    return FormField(name=name, kind=kind, choices=tuple(choices), required=required, description=about)
