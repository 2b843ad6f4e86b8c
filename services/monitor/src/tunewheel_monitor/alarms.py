"""Opens, keeps and resolves alarms."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from tunewheel_contracts.event import Event
from tunewheel_contracts.events.monitoring import DriftResolved, InferenceScored
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected, DriftWindow
from tunewheel_contracts.fields import shared
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.identity import content_sha256

from tunewheel_monitor import asking
from tunewheel_monitor.asking import Places
from tunewheel_monitor.detectors import Detector, Finding
from tunewheel_monitor.state import Alarm, ProjectState, Version
from tunewheel_monitor.turns import counting

CALM_WINDOWS = 3
"""An alarm is over after at least so many windows in a row without drift. A small shift may show in one
window and not in the next."""
SILENT_WINDOWS = 10
"""After so many windows in a row without anything to measure, such windows count as calm. If another version
serves, they count from the first: that version is not known to have the fault."""
UNRATED = timedelta(days=7)
"""An alarm about ratings is over if answers go on for so long without a rating: that covers every weekday.
The detector keeps its evidence, so the first window of bad ratings raises the alarm again."""
REOPENED = timedelta(days=30)
"""An alarm without a cluster reopens the detector's last alarm if that one ended at most so long ago."""
ENDED_KEPT = 4
"""How many alarms of a detector are remembered after their end."""


@dataclass(frozen=True, slots=True)
class Said:
    """An event to publish. ``places``: the log positions of the texts that show the alarm, by completion,
    most telling first. ``correlation_id`` None: use that of the scored event that closed the window."""

    data: Event
    places: Places = ()
    correlation_id: str | None = None
    copies: Places = ()
    """For pairs of answers: by completion, the log positions of the candidate's answers."""


def weigh(
    state: ProjectState,
    version: Version,
    detector: Detector,
    finding: Finding | None,
    *,
    project: str,
    window: DriftWindow,
    drift: DriftSpec,
    at: datetime,
) -> list[Said]:
    """Apply a detector's finding of a full window: open its alarm, keep it open, or end it. ``finding`` None:
    the detector had nothing to measure."""
    alarm = state.alarms.get(detector.name)
    if finding is not None and finding.drifted:
        if alarm is None:
            told: dict[str, Any] = {"project": project, "family": detector.family, "window": window}
            return _raise(state, version, finding, drift=drift, at=at, **told)
        alarm.calm_windows = alarm.calm_items = alarm.silent_windows = 0
        more = asking.more(state, alarm, finding)
        return [Said(*more)] if more else []
    if alarm is None:
        return []
    covered = alarm.dataset_id != version.dataset_id
    alarm.silent_windows = alarm.silent_windows + 1 if finding is None else 0
    if finding is None and not covered and alarm.silent_windows < SILENT_WINDOWS:
        return []
    alarm.calm_windows += 1
    alarm.calm_items += window.completions
    # A version that was trained on the new questions needs no cooldown.
    cooldown = 0 if covered else drift.cooldown_completions
    if alarm.calm_windows < CALM_WINDOWS or alarm.calm_items < cooldown:
        return []
    return [resolve(state, version, detector.name, project, "covered" if covered else "calm", at, finding)]


def hear(state: ProjectState, version: Version, item: InferenceScored) -> list[Said]:
    """Update open alarms with an answer or a rating. Alarms about ratings end if no ratings come any more."""
    said: list[Said] = []
    for name, alarm in list(state.alarms.items()):
        if item.of == "completion":
            alarm.inferences += 1
        if alarm.family != "feedback":
            continue
        heard = datetime.fromisoformat(alarm.rated_at) if alarm.rated_at else item.at
        if item.of == "completion" and item.at - heard >= UNRATED:
            said.append(resolve(state, version, name, item.project, "unrated", item.at))
        elif item.of == "rating" or not alarm.rated_at:
            alarm.rated_at = max(heard, item.at).isoformat()
    return said


def resolve(
    state: ProjectState,
    version: Version,
    detector: str,
    project: str,
    reason: str,
    at: datetime,
    finding: Finding | None = None,
) -> Said:
    """End the open alarm of ``detector``."""
    alarm = state.alarms.pop(detector)
    ended = {"alarm_id": alarm.alarm_id, "at": at.isoformat()}
    place = {name: alarm.asked[name] for name in ("centroid", "radius") if alarm.asked.get("centroid")}
    state.ended[detector] = [*state.ended.get(detector, ()), ended | place][-ENDED_KEPT:]
    raised_at = datetime.fromisoformat(alarm.raised_at)
    return Said(
        DriftResolved(
            project=project,
            alarm_id=alarm.alarm_id,
            detector=detector,
            dataset_id=version.dataset_id,
            model_id=version.model_id,
            reason=reason,
            statistic=finding.statistic if finding else alarm.statistic,
            threshold=finding.threshold if finding else alarm.threshold,
            raised_at=raised_at,
            resolved_at=max(at, raised_at),
            inferences=alarm.inferences,
        )
    )


def _raise(
    state: ProjectState,
    version: Version,
    finding: Finding,
    *,
    project: str,
    family: str,
    window: DriftWindow,
    drift: DriftSpec,
    at: datetime,
) -> list[Said]:
    named = [project, finding.detector, version.dataset_id, window.model_dump(mode="json")]
    digits = content_sha256(named)[:12]
    alarm_id = f"alarm-{digits}"
    state.alarms[finding.detector] = Alarm(
        alarm_id=alarm_id,
        family=family,
        dataset_id=version.dataset_id,
        raised_at=at.isoformat(),
        rated_at=at.isoformat(),
        statistic=finding.statistic,
        threshold=finding.threshold,
    )
    picked = asking.picked(finding)
    shown = picked.completion_ids
    places = asking.places_of(state, shown)
    path = asking.evidence_path(project, alarm_id) if places else None
    own: dict[str, Any] = {
        "project": project,
        "detector": family,
        "window": window,
        "alarm_id": alarm_id,
        "signal": finding.detector,
        "suggested_action": finding.action,
        "evidence": path,
        "reopens": _reopened(state, finding, at),
    }
    detected = DriftDetected(**shared(DriftDetected, version, finding) | own)
    # an alarm about missing documents says nothing about answers
    if finding.action != "update_documents" and (finding.cluster is None or not finding.cluster.centroid):
        counting.alarmed(state.turns, version.model_id)
    said = [Said(AlarmOpened.of(detected)), Said(detected, places=places)]
    if finding.action == "collect_labels" and shown:
        wanted = asking.request(detected, picked, wanted=drift.turns.min_labels)
        state.alarms[finding.detector].asked = wanted.model_dump(mode="json")
        said.append(Said(wanted, places=places))
    return said


def _reopened(state: ProjectState, finding: Finding, at: datetime) -> str | None:
    """Return the earlier alarm about the same problem: the latest whose cluster has the new one's centre. An
    alarm without a cluster reopens the detector's last one, unless it asks for labels: its questions may be
    about anything."""
    ended = reversed(state.ended.get(finding.detector, ()))
    if finding.cluster is not None and finding.cluster.centroid:
        same = (
            one
            for one in ended
            if asking.is_inside(finding.cluster, one.get("centroid", ()), one.get("radius", 0.0))
        )
    elif finding.action != "collect_labels":
        same = (one for one in ended if at - datetime.fromisoformat(one["at"]) <= REOPENED)
    else:
        return None
    return next((one["alarm_id"] for one in same), None)
