"""Opens, keeps and resolves alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

import numpy as np
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.monitoring import (
    DriftResolved,
    InferenceScored,
    LabelCluster,
    LabelsRequested,
)
from tunewheel_contracts.events.production import AlarmOpened, DriftCluster, DriftDetected, DriftWindow
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.formats.label_prompts import request_of
from tunewheel_contracts.identity import content_sha256

from tunewheel_monitor.detectors import Detector, Finding, picking
from tunewheel_monitor.state import ERASED, Alarm, ProjectState, Version
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
MOST_SHOWN = 200
AT_ONCE = 20
"""How many prompts are chosen from a detector's pool at once. Later prompts are chosen better, because more
traffic shows what the topics are."""
FEWEST_MORE = 10
"""How many prompts an open alarm adds to its request for labels at once, since people are notified each
time."""


@dataclass(frozen=True, slots=True)
class Said:
    """An event to publish. ``places``: the log positions of the texts that show the alarm, by completion,
    most telling first. ``correlation_id`` None: use that of the scored event that closed the window."""

    data: Event
    correlation_id: str | None = None
    places: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    copies: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """For pairs of answers: by completion, the log positions of the candidate's answers."""


def evidence_path(project: str, alarm_id: str, revision: int = 1) -> str:
    """Return the path of an alarm's texts in the object store. Revision 1 has the texts from when it opened;
    a later ``revision`` of its request for labels has the texts that it added."""
    name = alarm_id if revision == 1 else f"{alarm_id}.{revision}"
    return f"monitor/{project}/alarms/{name}.json"


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
        return _ask_for_more(state, alarm, finding)
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
    picked = _picked(finding)
    shown = picked.completion_ids
    places = _places(state, shown)
    path = evidence_path(project, alarm_id) if places else None
    detected = DriftDetected(
        project=project,
        detector=cast(Any, family),
        statistic_name=finding.statistic_name,
        statistic=finding.statistic,
        p_value=finding.p_value,
        threshold=finding.threshold,
        dataset_id=version.dataset_id,
        model_id=version.model_id,
        window=window,
        alarm_id=alarm_id,
        signal=finding.detector,
        effect=finding.effect,
        effect_unit=finding.effect_unit,
        reference=finding.reference,
        suggested_action=finding.action,
        cluster=finding.cluster,
        evidence=path,
        reopens=_reopened(state, finding, at),
    )
    # an alarm about missing documents says nothing about answers
    if finding.action != "update_documents" and (finding.cluster is None or not finding.cluster.centroid):
        counting.alarmed(state.turns, version.model_id)
    said = [Said(AlarmOpened.of(detected)), Said(detected, places=places)]
    if finding.action == "collect_labels" and shown:
        wanted = _wanted(detected, finding, picked, request_of(alarm_id), drift.turns.min_labels)
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
            if _is_inside(finding.cluster, one.get("centroid", ()), one.get("radius", 0.0))
        )
    elif finding.action != "collect_labels":
        same = (one for one in ended if at - datetime.fromisoformat(one["at"]) <= REOPENED)
    else:
        return None
    return next((one["alarm_id"] for one in same), None)


def _ask_for_more(state: ProjectState, alarm: Alarm, finding: Finding) -> list[Said]:
    """Add prompts that the detector found since to the alarm's request for labels. An alarm that opens early
    knows only a few of the prompts that need an answer."""
    if not alarm.asked:
        return []
    asked = LabelsRequested.model_validate(alarm.asked)
    if asked.centroid and not _is_inside(finding.cluster, asked.centroid, asked.radius):
        return []
    known = tuple(name for name in asked.completion_ids if name != ERASED)
    picked = _picked(finding, known, asked.clusters)
    found = [name for name in picked.completion_ids if name in state.places and name not in known]
    found = found[: MOST_SHOWN - len(known)]
    if len(found) < FEWEST_MORE:
        return []
    revision = asked.revision + 1
    path = evidence_path(asked.project, asked.alarm_id, revision)
    more = asked.model_copy(
        update={
            "revision": revision,
            "completion_ids": (*known, *found),
            "more_prompts": (*asked.more_prompts, path),
            "clusters": _of((*known, *found), picked.clusters),
            "questions": picked.questions,
        }
    )
    alarm.asked = more.model_dump(mode="json")
    return [Said(more, places=_places(state, found))]


def _picked(
    finding: Finding, asked: Sequence[str] = (), clusters: Sequence[LabelCluster] = ()
) -> picking.Picked:
    """Return the questions to ask about beside those ``asked``, which lie in ``clusters``."""
    if finding.asking is not None:
        return picking.pick(finding.asking, most=AT_ONCE, asked=asked, clusters=clusters)
    shown, cluster = _shown(finding), finding.cluster
    if cluster is None or not shown:
        return picking.Picked(shown)
    named = clusters[0].cluster_id if clusters else picking.name_of(shown[0])
    ids = tuple(dict.fromkeys((*asked, *shown)))[:MOST_SHOWN]
    size = max(cluster.prompts, len(ids))
    return picking.Picked(shown, (LabelCluster(cluster_id=named, completion_ids=ids, size=size),))


def _of(names: Sequence[str], clusters: Sequence[LabelCluster]) -> tuple[LabelCluster, ...]:
    """Return ``clusters`` with those prompts alone that the request names."""
    kept = ((one, tuple(name for name in one.completion_ids if name in names)) for one in clusters)
    return tuple(one.model_copy(update={"completion_ids": ids}) for one, ids in kept if ids)


def _is_inside(cluster: DriftCluster | None, centroid: Sequence[float], radius: float) -> bool:
    """Return whether ``cluster`` is the one with this ``centroid``. Another cluster may have become the
    largest."""
    if cluster is None or len(cluster.centroid) != len(centroid):
        return False
    own, found = np.array(centroid), np.array(cluster.centroid)
    lengths = np.linalg.norm(own) * np.linalg.norm(found)
    return bool(1.0 - own @ found / lengths <= radius)


def _places(state: ProjectState, names: Sequence[str]) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    return tuple((name, tuple(state.places[name])) for name in names if name in state.places)


def _shown(finding: Finding) -> tuple[str, ...]:
    ids = finding.cluster.completion_ids if finding.cluster else ()
    return tuple(name for name in dict.fromkeys((*ids, *finding.completion_ids)) if name != ERASED)[
        :MOST_SHOWN
    ]


def _wanted(
    detected: DriftDetected, finding: Finding, picked: picking.Picked, request_id: str, wanted: int
) -> LabelsRequested:
    cluster = finding.cluster
    return LabelsRequested(
        project=detected.project,
        request_id=request_id,
        alarm_id=detected.alarm_id or "",
        dataset_id=detected.dataset_id,
        wanted=wanted,
        centroid=cluster.centroid if cluster else (),
        radius=cluster.radius if cluster else 0.0,
        completion_ids=picked.completion_ids,
        prompts=detected.evidence,
        clusters=picked.clusters,
        questions=picked.questions,
    )
