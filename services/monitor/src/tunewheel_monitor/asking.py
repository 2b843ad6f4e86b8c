"""Requests labels for an alarm, and adds prompts to the request while the alarm is open."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date
from typing import TYPE_CHECKING, Any

import numpy as np
import structlog
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.production import DriftCluster, DriftDetected, InferenceCompleted
from tunewheel_contracts.events.turns import (
    ChosenCompletion,
    CompletionsChosen,
    LabelCluster,
    LabelsRequested,
)
from tunewheel_contracts.formats.label_prompts import request_for, request_of
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.service import Delivery

from tunewheel_monitor.detectors import Finding, picking
from tunewheel_monitor.evidence import Evidence, Exhibits, evidence_path
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.metrics import Metrics
from tunewheel_monitor.state import ERASED, Alarm, ProjectState

if TYPE_CHECKING:
    from tunewheel_monitor.watch import Log

log = structlog.get_logger(__name__)
UNTRAINED = "none"
"""Instead of a dataset version, where the base answers all traffic."""
NOBODY = "anybody"
"""Who asks, where identity is open."""
Places = tuple[tuple[str, tuple[Any, ...]], ...]
"""By completion, the log position of its texts."""
MOST_SHOWN = 200
AT_ONCE = 20
AT_ONCE_SHARE = 0.2
"""How many prompts of a detector's pool are chosen at once, and which share of it, at most. Later prompts are
chosen better, because more traffic shows what the topics are."""
FEWEST_FIRST = 10
"""So many are chosen when the alarm opens, whatever their share: people see by them what it is about."""
FEWEST_MORE = 10
"""How many prompts an open alarm adds to its request for labels at once, since people are notified each
time."""

MOST_DOUBTS = 200
"""For the labels of so many withheld questions of a project people are asked in a day, by each process."""
MOST_DAYS = 256
"""The days of projects that are remembered."""


@dataclass
class Doubts:
    """Chooses the withheld questions that become requests for labels: not the same question twice a day, and
    not more than people can answer. A restart forgets what was asked. Then people may be asked again."""

    most: int = MOST_DOUBTS
    _asked: OrderedDict[tuple[str, date], dict[str, str]] = field(
        default_factory=OrderedDict[tuple[str, date], dict[str, str]]
    )
    """By project and day, the completion that asks, by the hash of its question."""

    def take(self, data: InferenceCompleted) -> bool:
        """Return whether people are asked about ``data``. A repetition gives the same."""
        day = (data.project, data.completed_at.astimezone(UTC).date())
        asked = self._asked.setdefault(day, {})
        self._asked.move_to_end(day)
        while len(self._asked) > MOST_DAYS:
            self._asked.popitem(last=False)
        said = [one.content for one in data.messages if one.role != "system"]
        question = content_sha256([" ".join(text.casefold().split()) for text in said])
        if len(asked) < self.most:
            asked.setdefault(question, data.completion_id)
        return asked.get(question) == data.completion_id


def request(detected: DriftDetected, picked: picking.Picked, *, wanted: int) -> LabelsRequested:
    """Return the first revision of an alarm's request for labels."""
    cluster, alarm_id = detected.cluster, detected.alarm_id or ""
    return LabelsRequested(
        project=detected.project,
        request_id=request_of(alarm_id),
        alarm_id=alarm_id,
        dataset_id=detected.dataset_id,
        wanted=wanted,
        centroid=cluster.centroid if cluster else (),
        radius=cluster.radius if cluster else 0.0,
        completion_ids=picked.completion_ids,
        prompts=detected.evidence,
        clusters=picked.clusters,
        questions=picked.questions,
    )


def chosen(asked: CompletionsChosen, *, prompts: str, dataset_id: str) -> LabelsRequested:
    """Return the request for labels of completions that a person chose. ``prompts``: the path of their texts.
    It has no keywords: people choose what they searched, so a keyword would often be the name of a user, and
    no erasure takes it off the log."""
    return LabelsRequested(
        project=asked.project,
        request_id=asked.request_id,
        alarm_id=alarm_of(asked.request_id),
        dataset_id=dataset_id,
        wanted=len(asked.completions),
        completion_ids=tuple(one.completion_id for one in asked.completions),
        prompts=prompts,
        asked_by=asked.principal.name if asked.principal else NOBODY,
    )


def alarm_of(request_id: str) -> str:
    """Return the name by which the texts of a request that no alarm made are stored, as an alarm's are."""
    return request_id.removeprefix(request_of(""))


def more(state: ProjectState, alarm: Alarm, finding: Finding) -> tuple[LabelsRequested, Places] | None:
    """Add prompts that the detector found since to the alarm's request for labels, and return its next
    revision with the places of these prompts. None: there are too few. An alarm that opens early knows only a
    few of the prompts that need an answer."""
    if not alarm.asked:
        return None
    asked = LabelsRequested.model_validate(alarm.asked)
    if asked.centroid and not is_inside(finding.cluster, asked.centroid, asked.radius):
        return None
    known = tuple(name for name in asked.completion_ids if name != ERASED)
    chosen = picked(finding, known, _of(known, asked.clusters))
    found = [name for name in chosen.completion_ids if name in state.places and name not in known]
    found = found[: MOST_SHOWN - len(known)]
    if len(found) < FEWEST_MORE:
        return None
    revision = asked.revision + 1
    path = evidence_path(asked.project, asked.alarm_id, revision)
    grown = asked.model_copy(
        update={
            "revision": revision,
            "completion_ids": (*known, *found),
            "more_prompts": (*asked.more_prompts, path),
            "clusters": _of((*known, *found), chosen.clusters),
            "questions": chosen.questions,
        }
    )
    alarm.asked = grown.model_dump(mode="json")
    return grown, places_of(state, found)


def without_erased(alarm: Alarm) -> LabelsRequested | None:
    """Take the erased prompts out of the alarm's request for labels, and return its next revision. None: it
    has none. A topic would wait for their answers."""
    if ERASED not in alarm.asked.get("completion_ids", ()):
        return None
    asked = LabelsRequested.model_validate(alarm.asked)
    left = tuple(name for name in asked.completion_ids if name != ERASED)
    told = {"completion_ids": left, "clusters": _of(left, asked.clusters), "revision": asked.revision + 1}
    asked = asked.model_copy(update=told)
    alarm.asked = asked.model_dump(mode="json")
    return asked


def with_evidence(data: DriftDetected | LabelsRequested, found: Evidence) -> Event:
    """Return the event with the path of its texts, and with their keywords."""
    if isinstance(data, LabelsRequested):
        first = {"prompts": found.path} if data.revision == 1 else {}
        return data.model_copy(update=first | {"keywords": found.keywords})
    cluster = data.cluster and data.cluster.model_copy(update={"keywords": found.keywords})
    return data.model_copy(update={"evidence": found.path, "cluster": cluster})


def picked(
    finding: Finding, asked: Sequence[str] = (), clusters: Sequence[LabelCluster] = ()
) -> picking.Picked:
    """Return the questions to ask about beside those ``asked``, which lie in ``clusters``."""
    if finding.asking is not None:
        some = int(AT_ONCE_SHARE * picking.unasked(finding.asking, asked))
        most = min(AT_ONCE, MOST_SHOWN - len(asked), max(some, 0 if asked else FEWEST_FIRST))
        return picking.pick(finding.asking, most=most, asked=asked, clusters=clusters)
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


def is_inside(cluster: DriftCluster | None, centroid: Sequence[float], radius: float) -> bool:
    """Return whether ``cluster`` is the one with this ``centroid``. Another cluster may have become the
    largest."""
    if cluster is None or len(cluster.centroid) != len(centroid):
        return False
    own, found = np.array(centroid), np.array(cluster.centroid)
    lengths = np.linalg.norm(own) * np.linalg.norm(found)
    return bool(1.0 - own @ found / lengths <= radius)


def places_of(state: ProjectState, names: Sequence[str]) -> Places:
    return tuple((name, tuple(state.places[name])) for name in names if name in state.places)


def _shown(finding: Finding) -> tuple[str, ...]:
    ids = finding.cluster.completion_ids if finding.cluster else ()
    return tuple(name for name in dict.fromkeys((*ids, *finding.completion_ids)) if name != ERASED)[
        :MOST_SHOWN
    ]


@dataclass
class Questions:
    """Asks people for the labels of questions: of those that a person chose, and of those whose answers were
    withheld."""

    log: Log
    knowledge: Knowledge
    exhibits: Exhibits
    metrics: Metrics
    doubts: Doubts = field(default_factory=Doubts)

    async def choose(self, asked: CompletionsChosen) -> LabelsRequested:
        """Store the texts of completions that a person chose, and return the request for their labels. A
        repetition keeps the first texts.

        Raises:
            InvalidEvent: the project is not declared, or no text can be read.
            TransientError: the broker or the store is away.
        """
        spec = await self.knowledge.spec(asked.project)
        if spec is None:
            raise InvalidEvent(field="project", reason=f"{asked.project} is not declared; declare its spec")
        wanted = {(one.partition, one.offset): one.completion_id for one in asked.completions}
        read = await self.exhibits.read_at(topics.INFERENCE_COMPLETED, list(wanted))
        places = [
            (name, ("completion", *place))
            for place, name in wanted.items()
            if (event := read.get(place)) is not None
            and (event.project, event.data.completion_id) == (asked.project, name)
        ]
        found = await self.exhibits.keep(
            spec, alarm_of(asked.request_id), places, words={}, refresh=self.knowledge.refresh
        )
        if found.path is None:
            reason = (
                "have no texts that can be read: they were erased, were logged as hashes or not at all, or "
                "left the log; choose others"
            )
            raise InvalidEvent(field="completions", reason=reason)
        production = self.knowledge.production(asked.project)
        dataset_id = (production.dataset_id if production else None) or UNTRAINED
        return chosen(asked, prompts=found.path, dataset_id=dataset_id)

    async def withheld(self, deliveries: Sequence[Delivery[InferenceCompleted]]) -> list[Envelope[Any]]:
        """Return a request for a label of each question whose answer was withheld and that no fallback
        answered, where the project's spec says so. An answer whose confidence no engine gave is withheld for
        the engine's fault: nobody is asked. Nor is anybody where the log holds no text, nor about what
        ``Doubts`` leaves out.
        Raises TransientError: see ``choose``."""
        requests: list[Envelope[Any]] = []
        for event, at in ((one.event, one.position) for one in deliveries if one.event.data.abstained):
            data, spec = event.data, await self.knowledge.spec(event.project)
            abstain = spec.serving.abstain if spec is not None else None
            if abstain is None or abstain.to == "people" or data.certainty is None or data.answered_by:
                continue
            if not self.doubts.take(data):
                self.metrics.add("doubts.not_asked")
                continue
            place = ChosenCompletion(
                completion_id=data.completion_id, partition=at.partition, offset=at.offset
            )
            asked = CompletionsChosen(
                project=data.project, request_id=request_for([data.completion_id]), completions=(place,)
            )
            try:
                request = await self.choose(asked)
            except InvalidEvent as error:
                log.info("doubt_not_asked", completion_id=data.completion_id, reason=error.reason)
                continue
            named = request.model_copy(update={"asked_by": data.model_id})
            requests.append(self.log.new(named, cause=event))
        return requests
