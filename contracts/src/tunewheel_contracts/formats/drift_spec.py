"""A project's settings for drift: what counts as drift, and what an alarm leads to."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import NonNegative, PositiveInt, SourceId, Strict
from tunewheel_contracts.reading import if_unknown

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Follows = Annotated[Literal["collect_labels", "retrain", "investigate", "nothing"], if_unknown("investigate")]
"""What an alarm leads to: a new version once there are enough labels near it, a new version now, an
investigation by a person, or nothing."""
WithFloor = Literal[
    "novelty", "clusters", "mixture", "documents", "format", "labels", "length", "refusals", "repetition",
    "invented", "feedback", "corrections", "agreement", "latency", "errors", "confidence",
]  # fmt: skip
"""The detectors whose floor a spec may set. Earlier releases refuse a spec that sets the floor of another."""
DetectorName = Literal[WithFloor, "abstentions"]
"""The names of the monitor's detectors."""


class TurnBudget(Strict):
    """Limits of the cost of training in a calendar month (UTC). When a limit is reached, no further version
    is built automatically. A person's command is not limited. Sweeps count like runs."""

    gpu_hours: Positive | None = None
    """Hours of runs on GPUs: measured for finished runs, planned for running ones. Several GPUs of one run
    count once. null: no limit."""
    dollars: Positive | None = None
    """Cost by the prices that the train service knows (``TUNEWHEEL_DEVICES``). null: no limit."""


class TurnPolicy(Strict):
    """What alarms lead to, and when. Only one turn runs at a time; alarms that arrive meanwhile wait for its
    end."""

    follow: dict[str, Follows] = {}
    """What an alarm leads to, by the detector's own name (``novelty``), its family (``input``, ``format``,
    ``feedback``) or the action that the alarm suggests (``update_documents``). The first of the three that is
    listed counts; without an entry, the suggested action does. An alarm that asks for documents, or for
    labels without naming a cluster, leads to ``investigate``."""
    min_labels: PositiveInt = 20
    """Number of trusted examples near the cluster that a turn waits for. Each further turn for the same alarm
    waits for as many more."""
    alarm_seconds: NonNegative = 0.0
    """An alarm leads to nothing until it has been open for this long."""
    cooldown_seconds: NonNegative = 3600.0
    """Least time between the end of a turn that drift began and the start of the next one."""
    approval: bool = False
    """true: a turn that is due waits until a person begins it, with `tunewheel dataset build` or in the
    console."""
    budget: TurnBudget = TurnBudget()


class LabelsSpec(Strict):
    """Who is asked for labels of drifted prompts, besides people at the console."""

    webhook: Annotated[str | None, Field(max_length=512, exclude_if=operator.not_)] = None
    """URL that gets a signed CloudEvent for every request for labels, and once a week while alarms wait for
    people. Curate's operator lists the allowed hosts."""
    teacher_quota: Annotated[int, Field(ge=0, le=10_000)] = 0
    """Most answers per month that the teacher of ``dataset.formats.documents.questions.teacher`` is asked
    for. They are marked, and have the lowest trust, because nobody validated them. 0: the teacher is not
    asked."""
    seconds: Annotated[Positive, Field(exclude_if=lambda seconds: seconds == 30.0)] = 30.0
    """How long a person takes for an answer. The default is an assumption; measure your own."""
    dollars: Annotated[NonNegative, Field(exclude_if=operator.not_)] = 0.0
    """What an answer costs. 0: the cost is not shown."""
    assignees: Annotated[tuple[SourceId, ...], Field(max_length=64, exclude_if=operator.not_)] = ()
    """The people who answer. Each prompt is assigned to one of them, or to two for a second opinion; anybody
    else with the role may answer too. Empty: prompts are assigned to nobody."""
    second_opinion: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """true: an answer counts once two people have given the same label; of two different labels a third
    person's decides. If no two of three agree, or the only two ``assignees`` do not, the prompt is left out.
    The task needs ``label_field``."""

    @property
    def most_opinions(self) -> int:
        """After how many different opinions a prompt is left out."""
        return 2 if len(self.assignees) == 2 else 3

    def minutes(self, answers: int) -> float:
        """Return how long people take for so many answers."""
        return round(answers * self.seconds * (1 + self.second_opinion) / 60, 1)

    def cost(self, answers: int) -> float:
        """Return what so many answers cost, in dollars."""
        return round(answers * self.dollars * (1 + self.second_opinion), 2)

    def people_for(self, number: int) -> tuple[str, ...]:
        """Return who is to answer the prompt ``number`` of a request, from 1: two people for a second
        opinion, none without ``assignees``."""
        people = self.assignees
        wanted = min(len(people), 1 + self.second_opinion)
        return tuple(people[(number - 1 + n) % len(people)] for n in range(wanted))


class DriftSpec(Strict):
    enabled: bool = True
    window: Annotated[int, Field(ge=10)] = 100
    """Number of completions per window."""
    p_value: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Probability of a false alarm, by all detectors together, in ten windows in which nothing changed. Each
    detector gets a share of it, and alarms if its own p-value is below that share."""
    detectors: tuple[Literal["input", "format", "feedback"], ...] = ("input", "format", "feedback")
    disabled: Annotated[tuple[DetectorName, ...], Field(exclude_if=operator.not_)] = ()
    """Single detectors that are switched off. An open alarm of such a detector ends."""
    floors: Annotated[dict[WithFloor, Positive], Field(exclude_if=operator.not_)] = {}
    """By detector, the smallest effect that raises an alarm, in place of the detector's own floor. For most
    detectors it is a share: 0.03 is a rise by 3 points."""
    cooldown_completions: Annotated[int, Field(ge=0)] = 100
    """A detector alarms only once per shift. After an alarm it can alarm again only after this many
    consecutive completions (ratings, for ``feedback``), and at least three windows, without drift."""
    rebuild: bool = True
    """Whether alarms lead to anything; ``turns`` says to what."""
    action: Annotated[
        Literal["build", "suggest"], if_unknown("suggest"), Field(exclude_if=lambda action: action == "build")
    ] = "build"
    """suggest: once a project has a version, the next one is built only after a person asked for it, whatever
    the cause. Alarms and decisions are published as ever, and say what a person should do."""
    turns: Annotated[TurnPolicy, Field(exclude_if=lambda turns: turns == TurnPolicy())] = TurnPolicy()
    labels: Annotated[LabelsSpec, Field(exclude_if=lambda spec: spec == LabelsSpec())] = LabelsSpec()

    def asks_for(self, detector: str, family: str) -> bool:
        """Return whether a detector is switched on, by its family and its name."""
        return family in self.detectors and detector not in self.disabled
