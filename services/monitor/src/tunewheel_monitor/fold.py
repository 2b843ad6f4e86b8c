"""Folds scored events into a project's state, one after the other in the order of its partition, and returns
the events to publish.

Pure: the same events, facts and state give the same result, however the log is cut into batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from itertools import chain
from typing import Any, cast

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import DriftResolved, InferenceScored
from tunewheel_contracts.events.turns import TurnCompleted
from tunewheel_contracts.formats.confidence import Calibration
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_monitor import figures, slices
from tunewheel_monitor.alarms import Said, hear, resolve, weigh
from tunewheel_monitor.coverage import CoverageFacts, Encoding
from tunewheel_monitor.detectors import DETECTORS, WEIGHTS, Detector, Opening, State, evidence
from tunewheel_monitor.detectors.documents import Documents, fits_badly
from tunewheel_monitor.detectors.novelty import Novelty
from tunewheel_monitor.knowledge import Production, watches
from tunewheel_monitor.rollout import trials as rollout
from tunewheel_monitor.state import OpenWindow, ProjectState, Version
from tunewheel_monitor.turns import counting
from tunewheel_monitor.turns.conclusion import conclude
from tunewheel_monitor.turns.facts import OpenTurn

NAMES = frozenset(detector.name for detector in DETECTORS)
CONCLUDED_KEPT = 50
WORTH_SHOWING = 0.3
"""The repetition from which an answer may be shown with an alarm."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts about a project while a batch is folded."""

    spec: ProjectSpec
    production: Production | None = None
    coverage: CoverageFacts | None = None
    """The figures of the production version's dataset."""
    encoding: Encoding | None = None
    holdout: tuple[int, int] | None = None
    """(invalid, all) answers in its evaluation."""
    calibration: Calibration | None = None
    """How often its labels are right, by its confidence in them."""
    steps: Sequence[Envelope[Any]] = ()
    """The latest stage changes of models that are on trial, in production, or just left production."""
    turns: Sequence[OpenTurn] = ()


def follow(state: ProjectState, facts: Facts) -> None:
    """Begin and end trials by the registry's events. Call this before the first event of a batch."""
    for step in facts.steps:
        rollout.follow(state.trials, step)


def fold(state: ProjectState, item: InferenceScored, facts: Facts) -> list[Said]:
    """Update ``state`` with one scored event, and return the events to publish. A repeated event changes
    nothing. Of several ratings of a completion the first counts."""
    if not state.seen.add(item.scored):
        return []
    if item.of == "rating" and not state.seen.add(f"rating of {item.completion_id}"):
        return []
    said = _unwatch(state, item.project, facts, item.at)
    counting.see(state.turns, item, rollout.on_trial(state.trials, "canary"))
    rollout.count(state.trials, item, facts.spec.rollout)
    said += _ask(state, item.project, facts)
    said += _judge(state, item.project, facts, item.at)
    if facts.spec.drift.enabled and (version := _version(state, item, facts)) is not None:
        said += _watch(state, version, item, facts)
    return said


def tick(state: ProjectState, project: str, facts: Facts, now: datetime) -> list[Said]:
    """Return the events that follow from deadlines. All events before ``now`` must be in ``state``."""
    said = _unwatch(state, project, facts, now)
    return said + _judge(state, project, facts, now) + _conclude(state, facts, now)


def _unwatch(state: ProjectState, project: str, facts: Facts, at: datetime) -> list[Said]:
    """End alarms of detectors that are switched off now: no window would end them."""
    version, drift = state.version, facts.spec.drift
    if version is None:
        return []
    watch = partial(watches, drift, facts.production)
    over = [name for name, alarm in state.alarms.items() if not watch(detector=name, family=alarm.family)]
    said = [resolve(state, version, name, project, "off", at) for name in over]
    if len(asked_for(drift)) < len(DETECTORS) or not watch(detector="", family=drift.detectors[0]):
        told = partial(figures.tell, state, version, project=project, at=at, stands="off")
        said += chain.from_iterable(
            told(one) for one in DETECTORS
            if one.name in state.figures and not watch(detector=one.name, family=one.family)
        )  # fmt: skip
    return said


def asked_for(drift: DriftSpec) -> tuple[Detector, ...]:
    """Return the detectors that a spec switches on."""
    return _asked_for(drift.detectors, drift.disabled)


@lru_cache
def _asked_for(families: tuple[str, ...], disabled: tuple[str, ...]) -> tuple[Detector, ...]:
    return tuple(one for one in DETECTORS if one.family in families and one.name not in disabled)


def _judge(state: ProjectState, project: str, facts: Facts, now: datetime) -> list[Said]:
    judged = rollout.judge(state.trials, project, facts.spec.rollout, now)
    return [Said(one.data, correlation_id=one.correlation_id) for one in judged]


def _ask(state: ProjectState, project: str, facts: Facts) -> list[Said]:
    return [
        Said(
            one.data,
            correlation_id=one.correlation_id,
            places=tuple((name, ("completion", *places[0])) for name, places in one.places.items()),
            copies=tuple((name, ("completion", *places[1])) for name, places in one.places.items()),
        )
        for one in rollout.ask(state.trials, project, facts.spec.evaluation.judge)
    ]


def _conclude(state: ProjectState, facts: Facts, now: datetime) -> list[Said]:
    said, guarded = list[Said](), rollout.on_trial(state.trials, rollout.GUARD)
    for one in facts.turns:
        if one.conclusion in state.concluded:
            continue
        waits = one.turn.course.model_id in guarded
        if (over := conclude(state.turns, one, facts.spec.drift, now, guarded=waits)) is not None:
            state.concluded = [*state.concluded, one.conclusion][-CONCLUDED_KEPT:]
            # For one release the topic of earlier ones is written too: processes of both may run.
            both = (over, TurnCompleted.model_validate(over.model_dump()))
            said += [Said(event, correlation_id=one.turn.request.correlation_id) for event in both]
    return said


def _version(state: ProjectState, item: InferenceScored, facts: Facts) -> Version | None:
    """Return the version of ``item``. Open it if this is its first answer in production. None: detectors
    ignore the item."""
    if not _is_watched(item):
        return None
    version, now = state.version, facts.production
    if version is not None and version.model_id == item.model_id:
        return version
    serves = now is not None and now.model_id == item.model_id and item.of == "completion"
    if now is None or now.dataset_id is None or not serves:
        return None
    before = version.detectors if version else {}
    opened = {
        detector.name: detector.open(_opening(facts, now.dataset_id, before.get(detector.name)))
        for detector in DETECTORS
    }
    windows = [OpenWindow(facts.spec.drift.window, facts.spec.drift.p_value) for _ in range(2)]
    state.version = Version(now.model_id, now.dataset_id, now.generation, opened, *windows)
    return state.version


def _opening(facts: Facts, dataset_id: str, predecessor: State | None = None) -> Opening:
    return Opening(
        drift=facts.spec.drift,
        dataset_id=dataset_id,
        coverage=facts.coverage,
        holdout=facts.holdout,
        calibration=facts.calibration,
        predecessor=predecessor,
        weights=WEIGHTS,
    )


def _told_of(version: Version, facts: Facts) -> Facts:
    """Return ``facts``, without those of the dataset and the evaluation if these belong to another model than
    ``version``."""
    now = facts.production
    known = now is not None and now.model_id == version.model_id
    return facts if known else replace(facts, coverage=None, encoding=None, holdout=None, calibration=None)


def _begin(version: Version, window: OpenWindow, facts: Facts) -> None:
    """Set up a new window and the detectors by the current spec. Detector states of an older release without
    the needed fields are opened again."""
    drift, told = facts.spec.drift, _told_of(version, facts)
    if told.encoding is not None:
        begun = _opening(replace(told, coverage=told.encoding.coverage.facts), version.dataset_id)
        Novelty().encode(version.detectors[Novelty.name], told.encoding.encoder, begun)
    if not window.differs(drift):
        return
    window.size, window.p_value = drift.window, drift.p_value
    for detector in DETECTORS:
        if (detector.family == "feedback") is (window is version.ratings):
            opened = detector.open(_opening(told, version.dataset_id))
            if opened.keys() - version.detectors[detector.name].keys():
                version.detectors[detector.name] = opened
            else:
                evidence.follow(version.detectors[detector.name], opened)


def _upgrade(state: ProjectState, version: Version, item: InferenceScored, facts: Facts) -> list[Said]:
    """Bring a state of another release to the detectors of this release: open new detectors, let the others
    have the share that is left, and end the alarms of removed ones."""
    opening = _opening(_told_of(version, facts), version.dataset_id)
    gone = [name for name in state.alarms if name not in NAMES]
    opened = {detector.name: detector.open(opening) for detector in DETECTORS}
    for name in version.detectors.keys() & NAMES:
        evidence.follow(version.detectors[name], opened[name])
    version.detectors = {name: version.detectors.get(name, new) for name, new in opened.items()}
    state.figures = {name: figure for name, figure in state.figures.items() if name in NAMES}
    return [resolve(state, version, name, item.project, "off", item.at) for name in gone]


def _is_watched(item: InferenceScored) -> bool:
    if item.of == "rating":
        return True
    routed = item.role is RouteRole.PRODUCTION and not item.pinned and item.shadow_of is None
    return routed and item.outcome != "cancelled" and item.fault != "client"


def _watch(state: ProjectState, version: Version, item: InferenceScored, facts: Facts) -> list[Said]:
    said: list[Said] = [] if version.detectors.keys() == NAMES else _upgrade(state, version, item, facts)
    if _may_be_shown(version, item) and item.position is not None:
        place = [item.of, item.position.partition, item.position.offset]
        state.note_place(item.completion_id, place)
    window = version.ratings if item.of == "rating" else version.answers
    if not window.items or not window.size:
        _begin(version, window, facts)
    seen = {one.name: one.see(version.detectors[one.name], item) for one in asked_for(facts.spec.drift)}
    slices.count(state.slices, item, [name for name, bad in seen.items() if bad])
    over = hear(state, version, item)
    ended = {one.data.detector for one in over if isinstance(one.data, DriftResolved)}
    tell = partial(figures.tell, state, version, project=item.project, at=item.at)
    said += chain(over, *(tell(one) for one in DETECTORS if one.name in ended))
    window.take(item.completion_id, item.at)
    if window.is_full:
        said += _close(state, version, item, facts)
    return said


def _close(state: ProjectState, version: Version, item: InferenceScored, facts: Facts) -> list[Said]:
    """End the full window that ``item`` belongs to."""
    drift, said, of_ratings = facts.spec.drift, list[Said](), item.of == "rating"
    window = (version.ratings if of_ratings else version.answers).closed()
    state.windows["ratings" if of_ratings else "answers"] += 1
    tell = partial(figures.tell, state, version, project=item.project, at=item.at)
    for detector in asked_for(drift):
        if (detector.family == "feedback") is not of_ratings:
            if not of_ratings and detector.name not in state.figures:
                said += tell(detector)  # nobody has rated
            continue
        finding = detector.look(version.detectors[detector.name], drift.floors.get(cast(Any, detector.name)))
        state.looks[detector.name] += finding is not None
        told: dict[str, Any] = {"project": item.project, "window": window, "drift": drift, "at": item.at}
        said += weigh(state, version, detector, finding, **told)
        said += tell(detector, finding=finding)
    slices.fade(state.slices, item.of)
    if of_ratings:
        version.ratings = version.ratings.next()
    else:
        version.answers = version.answers.next()
    return said + _conclude(state, facts, item.at)


def _may_be_shown(version: Version, item: InferenceScored) -> bool:
    """Return whether a completion may be shown with an alarm. If so, its log position is kept."""
    if item.of == "rating":
        return item.rating == "down" or bool(item.corrected)
    if fits_badly(version.detectors[Documents.name], item):
        return True
    odd = (
        item.novel
        or item.vector is not None
        or (item.encoded is not None and item.encoded.vector is not None)
        or item.format_valid is False
        or item.refusal
        or item.truncated
        or item.invented
    )
    return bool(odd) or item.outcome == "failed" or (item.repetition or 0) >= WORTH_SHOWING
