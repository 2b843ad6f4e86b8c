"""Projects: where each is on the wheel, and what is to be done; and what is told of a spec that is checked or
put in force."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.api.alarms import AlarmSummary
from tunewheel_contracts.api.commands import Accepted
from tunewheel_contracts.api.datasets import Power
from tunewheel_contracts.api.turns import TurnSummary
from tunewheel_contracts.changes import Change
from tunewheel_contracts.events.turns import TurnCompleted, TurnDecided
from tunewheel_contracts.fields import Frozen, Sha256, Timestamp
from tunewheel_contracts.formats.serving import Route


class ProjectCounts(Frozen):
    """How many of each there are, or were."""

    datasets: int = 0
    runs: int = 0
    promoted: int = 0
    """Models that are, or were, in production."""
    alarms: int = 0
    open_alarms: int = 0
    labels_waiting: int = 0
    """Requests for labels that wait for people."""
    reviews_waiting: int = 0
    """Reviews of answers, and versions that wait for a person's word on their scorecard."""


class ProjectSummary(Frozen):
    project: str
    declared: bool
    """Whether the project has a spec. False: it was removed."""
    place: str
    """Where the project is on the wheel, in words; empty: it was never declared."""
    since: Timestamp | None = None
    """The time of the last event that moved the project."""
    last: str = ""
    """That event, in words."""
    champion: str | None = None
    """The model in production; None: the base model answers, or nothing is served."""
    serving: str = "nothing"
    """The routes, in words."""
    counts: ProjectCounts


class ReportLine(Frozen):
    """One line of the project's report for people."""

    about: str
    """``alarm``, ``decision``, ``turn in flight``, ``last turn``, ``margin`` or ``to do``."""
    text: str


class ProjectDetail(ProjectSummary):
    spec: dict[str, Any] | None = None
    """The spec in the form of ``project.yaml``; None: the project is not declared."""
    declared_at: Timestamp | None = None
    routes: tuple[Route, ...] = ()
    generation: int | None = None
    """Of the routes, which commands on models name. None: nothing is served."""
    pinned: str | None = None
    """The model that no other may replace."""
    alarms: tuple[AlarmSummary, ...] = ()
    """The open alarms, oldest first."""
    decision: TurnDecided | None = None
    """Curate's decision about the open alarms: what it does, or waits for."""
    in_flight: tuple[TurnSummary, ...] = ()
    """The turns that go on, oldest first."""
    last_turn: TurnCompleted | None = None
    reviews_of_scorecards: tuple[str, ...] = ()
    """The runs whose scorecards wait for a person's word."""
    spent: float = 0.0
    """How much worse than the best champion so far the present one may be, as a share of questions."""
    next_steps: tuple[str, ...] = ()
    """What a person should do."""
    report: tuple[ReportLine, ...] = ()
    """All of this in words, most urgent first."""


class Declaration(Accepted):
    """A spec without a fault. ``command_id`` is empty where the request only checks."""

    spec_sha256: Sha256
    criteria_sha256: Sha256
    base_model: str
    criteria: int
    """How many criteria the spec has."""
    cautions: tuple[str, ...] = ()
    """Warnings about settings that are allowed but seldom intended."""
    notes: tuple[str, ...] = ()
    """Changes that do not take effect at once."""
    replaces: str = ""
    """The SHA-256 of the spec that was in force before; ``none``: there was none."""
    changes: dict[str, Change] = {}
    """What the spec changes: by dotted path the value that was in force, and the new one; null: there is
    none."""
    power: Power | None = None
    """How probable a verdict is on the held-out rows of the smallest version that the spec allows."""
    power_left_out: str | None = None
    """Why ``power`` was not computed."""
