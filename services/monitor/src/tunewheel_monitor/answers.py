"""Describes an answer in figures: its label, whether it declines, how much it repeats, and how many terms it
invents."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field

from pydantic_core import SchemaValidator
from tunewheel_contracts.fields import linear_complaint, linear_engine
from tunewheel_contracts.formats.output_rules import AllowedValuesRule
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_outputs.form import AnswerForm
from tunewheel_outputs.labels import label_of, label_text, labels_in_schema
from tunewheel_outputs.parsing import readable
from tunewheel_outputs.terms import names_in, terms_of
from tunewheel_outputs.texts import spoken

LONGEST_TEXT = 4_000
"""Only so many characters of a question or an answer are used: the embedder reads 512 tokens."""
GRAM = 4


@dataclass(frozen=True, slots=True)
class Task:
    """One project's task, prepared for many answers."""

    spec: TaskSpec
    form: AnswerForm
    refusal: SchemaValidator | None = None
    labels: frozenset[str] = frozenset()
    """The labels that the task lists."""

    @classmethod
    def of(cls, spec: TaskSpec) -> Task:
        known = spec.refusal is not None and linear_complaint(spec.refusal) is None
        refusal = linear_engine(spec.refusal or "") if known else None
        return cls(spec, AnswerForm(spec), refusal, labels_of(spec))

    def label(self, answer: str, known: Set[str]) -> str | None:
        """Return the label of ``answer`` if the task lists it or, if the task lists none, if it is in
        ``known``. Otherwise return None: the value may be a person's words."""
        found = label_of(answer, self.spec)
        return found if found in (self.labels or known) else None

    def declines(self, answer: str) -> bool | None:
        """Return whether ``answer`` declines; None: the task has no pattern for that."""
        return None if self.refusal is None else self.refusal.isinstance_python(readable(answer))


@dataclass(slots=True)
class Tasks:
    """Prepared tasks by project. A task is prepared again if its spec changed."""

    _by_project: dict[str, tuple[str, Task]] = field(default_factory=dict[str, tuple[str, Task]])

    def of(self, spec: ProjectSpec) -> Task:
        known = self._by_project.get(spec.project)
        if known is None or known[0] != spec.sha256:
            known = (spec.sha256, Task.of(spec.task))
            self._by_project[spec.project] = known
        return known[1]


def labels_of(task: TaskSpec) -> frozenset[str]:
    """Return the labels that the schema or a rule lists; empty if none does."""
    field = task.label_field
    for rule in task.output_rules:
        if isinstance(rule, AllowedValuesRule) and rule.field == field and (field or task.is_plain_label):
            return frozenset(map(label_text, rule.values))
    return frozenset(labels_in_schema(task))


def repetition(answer: str) -> float:
    """Return the share of the answer's word 4-grams that occur earlier in it; 0.0 if it has none."""
    words = answer[:LONGEST_TEXT].split()
    grams = len(words) - GRAM + 1
    if grams < 1:
        return 0.0
    distinct = len(set(zip(*(words[n:] for n in range(GRAM)), strict=False)))
    return 1 - distinct / grams


def invented(answer: str, said_before: str, terms: Set[str]) -> int:
    """Return how many names, numbers and identifiers of the answer are neither in ``said_before`` nor in
    ``terms`` (the terms of the training rows). This is the metric ``invented_terms``, without an expert's
    answer."""
    named = {name for text in spoken(answer[:LONGEST_TEXT]) for name in names_in(text)}
    unknown = [name for name in named if name not in terms]
    if not unknown:
        return 0
    given = terms_of((said_before,))
    return sum(name not in given for name in unknown)
