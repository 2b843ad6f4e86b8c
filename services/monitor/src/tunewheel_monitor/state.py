"""The monitor's state of one project. It is JSON, stored with every checkpoint, of bounded size and without
texts."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar

from tunewheel_contracts.events.production import DriftWindow
from tunewheel_contracts.formats.drift_spec import DriftSpec

from tunewheel_monitor.rollout import trials as rollout
from tunewheel_monitor.turns import counting

DetectorState = dict[str, Any]
T = TypeVar("T")
REMEMBERED = 40_000
"""How many scored events are remembered, to recognise repetitions. After a kill, a gateway publishes a
segment of its disk queue again, and a scorer's batch is scored again by another process, after a session
timeout in which other partitions go on. It takes 320 KB of a checkpoint."""
DIGEST_BYTES = 6
ERASED = "erased"
"""Replaces an erased name."""
NAMING = ("ids", "farthest", "first", "last", "completion_ids")
"""The fields of detectors, windows and alarms with ids of completions, or lists of ids. States of earlier
releases have ``farthest``."""
PLACES_KEPT = 1_000
"""The most recent completions whose log positions are kept, because their texts may be shown with an
alarm."""


class Seen:
    """The latest ``REMEMBERED`` names, as six bytes of a hash each. A new name collides once in 7 * 10^9
    names."""

    def __init__(self, packed: str = "") -> None:
        raw = base64.b64decode(packed)
        parts = (raw[n : n + DIGEST_BYTES] for n in range(0, len(raw), DIGEST_BYTES))
        self._digests: OrderedDict[bytes, None] = OrderedDict.fromkeys(parts)

    def add(self, name: str) -> bool:
        """Add ``name``; return False if it was there already."""
        digest = hashlib.blake2b(name.encode(), digest_size=DIGEST_BYTES).digest()
        if digest in self._digests:
            return False
        self._digests[digest] = None
        if len(self._digests) > REMEMBERED:
            self._digests.popitem(last=False)
        return True

    def packed(self) -> str:
        return base64.b64encode(b"".join(self._digests)).decode()


@dataclass(slots=True)
class OpenWindow:
    """The current window. ``size`` and ``p_value`` are those of the spec at its beginning; 0: it has not
    begun."""

    size: int = 0
    p_value: float = 0.0
    first: str = ""
    last: str = ""
    items: int = 0
    started_at: str = ""
    ended_at: str = ""

    def take(self, completion_id: str, at: datetime) -> None:
        moment = at.isoformat()
        if not self.items:
            self.first, self.started_at, self.ended_at = completion_id, moment, moment
        self.last, self.items = completion_id, self.items + 1
        self.started_at, self.ended_at = min(self.started_at, moment), max(self.ended_at, moment)

    def differs(self, drift: DriftSpec) -> bool:
        """Return whether the spec's windows have changed since this one began."""
        return (self.size, self.p_value) != (drift.window, drift.p_value)

    @property
    def is_full(self) -> bool:
        return self.items >= self.size

    def next(self) -> OpenWindow:
        return OpenWindow(self.size, self.p_value)

    def closed(self) -> DriftWindow:
        """Return the window in the form of alarms."""
        return DriftWindow(
            first_completion_id=self.first,
            last_completion_id=self.last,
            completions=self.items,
            started_at=datetime.fromisoformat(self.started_at),
            ended_at=datetime.fromisoformat(self.ended_at),
        )


@dataclass(slots=True)
class Version:
    """The model in production, and the detectors' states. ``generation`` is that of the desired state that
    put it into production."""

    model_id: str
    dataset_id: str
    generation: int
    detectors: dict[str, DetectorState] = field(default_factory=dict[str, DetectorState])
    answers: OpenWindow = field(default_factory=OpenWindow)
    ratings: OpenWindow = field(default_factory=OpenWindow)

    def as_json(self) -> dict[str, Any]:
        return _told(self) | {"answers": _told(self.answers), "ratings": _told(self.ratings)}

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Version:
        opened = {name: _read(OpenWindow, told[name]) for name in ("answers", "ratings")}
        whole: dict[str, Any] = told | opened
        return cls(**{name: whole[name] for name in _names(cls)})


@dataclass(slots=True)
class Alarm:
    """An alarm that is open. One detector has one at a time."""

    alarm_id: str
    family: str
    dataset_id: str
    raised_at: str
    statistic: float
    threshold: float
    calm_windows: int = 0
    calm_items: int = 0
    silent_windows: int = 0
    """The latest windows in a row in which the detector had nothing to measure."""
    inferences: int = 0
    asked: dict[str, Any] = field(default_factory=dict[str, Any])
    """The newest ``labels.requested``; empty: the alarm requested no labels."""
    rated_at: str = ""
    """When the latest rating was given, or else when the alarm was raised. Empty: the state is of an earlier
    release; the next item sets it."""


@dataclass(slots=True)
class ProjectState:
    """``offsets``: partition of ``inference.scored`` → the offset before which all events are folded."""

    offsets: dict[str, int] = field(default_factory=dict[str, int])
    seen: Seen = field(default_factory=Seen)
    version: Version | None = None
    alarms: dict[str, Alarm] = field(default_factory=dict[str, Alarm])
    """By detector."""
    ended: dict[str, list[dict[str, Any]]] = field(default_factory=dict[str, list[dict[str, Any]]])
    """By detector, latest last: ``alarm_id`` and ``at`` of alarms that are over; of a cluster also its
    ``centroid`` and ``radius``."""
    places: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """Completion id → [``completion`` or ``rating``, partition, offset], latest last."""
    trials: rollout.Trials = field(default_factory=rollout.new)
    turns: counting.State = field(default_factory=counting.fresh)
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    """By detector, what is told of its windows (``figures.py``)."""
    slices: dict[str, Any] = field(default_factory=dict[str, Any])
    """Counts of bad items by label, language and key (``slices.py``)."""
    concluded: list[str] = field(default_factory=list[str])
    """Turns whose ``turn.completed`` was published, latest last."""
    windows: Counter[str] = field(default_factory=Counter[str], init=False)
    looks: Counter[str] = field(default_factory=Counter[str], init=False)
    """For metrics: what was judged since the last reading, of ``answers`` or ``ratings``, and by detector. No
    checkpoint holds them."""

    def note_place(self, completion_id: str, place: list[Any]) -> None:
        self.places.pop(completion_id, None)
        self.places[completion_id] = place
        if len(self.places) > PLACES_KEPT:
            del self.places[next(iter(self.places))]

    def as_json(self) -> dict[str, Any]:
        return _told(self) | {
            "seen": self.seen.packed(),
            "version": self.version and self.version.as_json(),
            "alarms": {name: _told(alarm) for name, alarm in self.alarms.items()},
        }

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> ProjectState:
        version = told["version"]
        # States of earlier releases lack these three; without another field a state is damaged.
        whole: dict[str, Any] = {"ended": {}, "figures": {}, "slices": {}} | told
        whole |= {
            "seen": Seen(told["seen"]),
            "version": None if version is None else Version.from_json(version),
            "alarms": {name: _read(Alarm, alarm) for name, alarm in told["alarms"].items()},
            "trials": rollout.read(told["trials"]),
        }
        return cls(**{name: whole[name] for name in _names(cls)})


def _names(kind: Any) -> list[str]:
    return [one.name for one in fields(kind) if one.init]


def _told(one: Any) -> dict[str, Any]:
    """Return the fields of a dataclass. Their values are not copied: detectors' states are large."""
    return {name: getattr(one, name) for name in _names(one)}


def _read(kind: type[T], told: dict[str, Any]) -> T:
    """Return a ``kind``, a dataclass, without the fields of ``told`` that a later release added. Fields that
    an earlier release did not write have their defaults."""
    return kind(**{name: value for name, value in told.items() if name in _names(kind)})


def without(told: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """Return a state, as JSON, in which ``ERASED`` replaces the ids of these completions.

    Only fields with completion ids are changed: an id may be any string, such as "3" or "answers". A question
    of a pool is removed with its vector.
    """
    version, trials = told["version"], rollout.read(told["trials"])
    opened = {
        model_id: trial
        | {"waiting": _but(trial["waiting"], names)}
        | {"comparisons": compared | {field: _but(compared[field], names) for field in ("drawn", "fresh")}}
        for model_id, trial in trials["open"].items()
        for compared in (trial["comparisons"],)
    }
    return told | {
        "places": _but(told["places"], names),
        "trials": trials | {"open": opened},
        "alarms": _unnamed(told["alarms"], names),
        "version": version
        and version
        | {
            "detectors": _unnamed(version["detectors"], names),
            "answers": _unnamed(version["answers"], names),
            "ratings": _unnamed(version["ratings"], names),
        },
    }


def _but(by_name: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in by_name.items() if name not in names}


def _unnamed(value: Any, names: frozenset[str], field: str = "") -> Any:
    if isinstance(value, dict):
        kept = _but(value, names) if field == "pool" else value
        return {key: _unnamed(inner, names, key) for key, inner in kept.items()}
    if isinstance(value, list):
        return [_unnamed(inner, names, field) for inner in value]
    return ERASED if field in NAMING and isinstance(value, str) and value in names else value
