"""Scores completions and ratings: ``inference.scored``. Scores do not depend on the process, so any number of
processes can share the work."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.monitoring import InferenceScored, LogPosition
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected, InferenceCompleted
from tunewheel_contracts.events.upstream import FeedbackReceived
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_embedding.static import StaticEmbedder, Vectors, unit_length
from tunewheel_outputs.labels import label_of
from tunewheel_outputs.languages import language_of
from tunewheel_outputs.texts import said_before
from tunewheel_runtime.service import Delivery

from tunewheel_monitor.answers import LONGEST_TEXT, Task, Tasks, invented, repetition
from tunewheel_monitor.coverage import LEVELS, ODD
from tunewheel_monitor.detectors import MEASURES
from tunewheel_monitor.detectors.picking import encoded
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.metrics import Metrics
from tunewheel_monitor.pseudonym_keys import PseudonymKeys
from tunewheel_monitor.reference import Reference, References, asked
from tunewheel_monitor.sample import Sample

MOST = 16
"""The most alarms that a question is assigned to; the newest count."""
LEGIBLE = ("full", "redacted")
Fields = dict[str, Any]
BLANK = InferenceScored.model_construct(**Fields())
"""A score with default values. Copying it costs a quarter of building a new one."""


@dataclass(frozen=True, slots=True)
class Around:
    """The inputs for scoring a project's batch."""

    task: Task
    reference: Reference | None
    clusters: Sequence[DriftDetected | AlarmOpened]
    erasures: Sequence[Erasure]
    pseudonyms: Pseudonyms


@dataclass(frozen=True)
class Scorer:
    """Scores batches, with one call of the tokenizer and one matrix product per batch.

    ``pseudonyms`` returns a project's pseudonyms of users.
    """

    knowledge: Knowledge
    references: References
    embedder: StaticEmbedder
    new: Callable[..., Envelope[Any]]
    pseudonyms: PseudonymKeys
    metrics: Metrics
    sample: Sample
    _tasks: Tasks = field(default_factory=Tasks)

    async def completions(self, deliveries: Sequence[Delivery[InferenceCompleted]]) -> list[Envelope[Any]]:
        """Return the scores of a batch, in order. Completions of undeclared or unwatched projects have none.

        Raises:
            TransientError: the store or the broker cannot be reached.
        """
        await self.knowledge.learn([delivery.event.data for delivery in deliveries])
        return await self._scored(deliveries, "completion", self._completions)

    async def ratings(self, deliveries: Sequence[Delivery[FeedbackReceived]]) -> list[Envelope[Any]]:
        """Return the scores of a batch of ratings, like ``completions``. A rating without a model, or of a
        model that is not routed now, has no score."""
        roles = {delivery.event.id: self._role_of(delivery.event.data) for delivery in deliveries}
        routed = [delivery for delivery in deliveries if roles[delivery.event.id] is not None]
        return await self._scored(routed, "rating", partial(self._ratings, roles))

    def _role_of(self, data: FeedbackReceived) -> RouteRole | None:
        """Return the role of the rated model in routing. The log is not read for it: anybody may name any
        model, and a routed model had answered before it was rated."""
        return self.knowledge.role_of(data.project, data.model_id) if data.model_id else None

    async def _scored(
        self, deliveries: Sequence[Delivery[Any]], of: str, score: Callable[..., Iterator[Fields]]
    ) -> list[Envelope[Any]]:
        by_project: dict[str, list[int]] = defaultdict(list)
        for place, delivery in enumerate(deliveries):
            by_project[delivery.event.project].append(place)
        found: dict[int, Envelope[Any]] = {}
        for project, places in by_project.items():
            spec = await self.knowledge.spec(project)
            if spec is None or not self.knowledge.is_watched(spec):
                continue
            some, task = [deliveries[n] for n in places], self._tasks.of(spec)
            production = self.knowledge.production(project)
            reference = None
            if spec.drift.enabled and production is not None and production.dataset_id is not None:
                reference = await self.references.get(production.dataset_id)
            # copy the state that other tasks may change: the thread below must not read it
            around = Around(
                task,
                reference,
                self.knowledge.turns.clusters(project),
                self.knowledge.erasures.of(project),
                await self.pseudonyms.of(project),
            )
            scores = await asyncio.to_thread(self._envelopes, some, score, around)
            found |= dict(zip(places, scores, strict=True))
        self.metrics.add("scores.made", len(found), of=of)
        return [found[n] for n in sorted(found)]

    def _envelopes(
        self,
        deliveries: Sequence[Delivery[Any]],
        score: Callable[..., Iterator[Fields]],
        around: Around,
    ) -> list[Envelope[Any]]:
        made: list[Envelope[Any]] = []
        for delivery, fields in zip(deliveries, score(deliveries, around), strict=True):
            fields |= _common(delivery, fields["at"], around)
            # the fields come from validated events or from this module, so they need no validation
            made.append(self.new(BLANK.model_copy(update=fields), cause=delivery.event))
        return made

    def _completions(
        self, deliveries: Sequence[Delivery[InferenceCompleted]], around: Around
    ) -> Iterator[Fields]:
        completions = [delivery.event.data for delivery in deliveries]
        asking = [n for n, data in enumerate(completions) if _is_traffic(data)] if around.reference else []
        places = [n for n in asking if completions[n].role is RouteRole.PRODUCTION]
        canary = sorted({*asking} - {*places})
        located = self._located([completions[n] for n in places], around)
        beside = self._near([asked(completions[n].messages)[:LONGEST_TEXT] for n in canary], around)
        by_place = dict(zip(places, located, strict=True))
        by_place |= {n: {"near": alarms} for n, alarms in zip(canary, beside, strict=True)}
        for place, data in enumerate(completions):
            yield _of_completion(data) | _of_answer(data, around) | by_place.get(place, {})

    def _ratings(
        self,
        roles: Mapping[str, RouteRole | None],
        deliveries: Sequence[Delivery[FeedbackReceived]],
        around: Around,
    ) -> Iterator[Fields]:
        reference = around.reference
        labels = reference.labels if reference else frozenset[str]()
        questions = [asked(delivery.event.data.messages)[:LONGEST_TEXT] for delivery in deliveries]
        alarms = self._near(questions, around)
        for place, delivery in enumerate(deliveries):
            data = delivery.event.data
            yield {
                "of": "rating",
                "role": roles[delivery.event.id],
                "at": delivery.event.time,
                "client": data.principal.name if data.principal else None,
                "pinned": data.pinned,
                "rating": data.rating,
                "corrected": data.correction is not None,
                "agrees": _agrees(data, around.task),
                "language": language_of(questions[place]),
                "label": None if data.output is None else around.task.label(data.output, labels),
                "overrides": data.overrides,
                "near": alarms[place],
            }

    def _near(self, questions: Sequence[str], around: Around) -> list[tuple[str, ...]]:
        vectors = self.embedder.embed([*questions]) if around.clusters else np.zeros((len(questions), 0))
        return near(unit_length(vectors), around.clusters)

    def _located(self, completions: Sequence[InferenceCompleted], around: Around) -> list[Fields]:
        reference = around.reference
        if not completions or reference is None:
            return []
        questions = [asked(data.messages)[:LONGEST_TEXT] for data in completions]
        vectors = self.embedder.embed(questions)
        found, units = reference.coverage.score(vectors), unit_length(vectors)
        odd = reference.coverage.facts.levels[LEVELS.index(ODD)]
        alarms = near(units, around.clusters)
        located: list[Fields] = [
            {"dataset_id": reference.dataset_id, "near": alarms[n], "language": language_of(question)}
            for n, question in enumerate(questions)
        ]
        judged = [n for n, question in enumerate(questions) if len(question) >= reference.shortest]
        for n in judged:
            located[n]["cell"] = int(found.cell[n])
            located[n]["novelty"] = round(float(found.novelty[n]), 4)
            located[n]["novel"] = bool(found.novel[n])
            if found.novelty[n] > odd:
                located[n]["vector"] = encoded(units[n])
        drawn = self.sample.scores(
            completions[0].project,
            [questions[n] for n in judged],
            [completions[n].completed_at for n in judged],
            reference.encoding,
        )
        for place, by_encoder in drawn:
            n = judged[place]
            located[n]["encoded"] = by_encoder
            if by_encoder.novel:  # people may be asked about it
                located[n]["vector"] = encoded(units[n])
        return located


def _common(delivery: Delivery[Any], at: datetime, around: Around) -> Fields:
    data, position = delivery.event.data, delivery.position
    subject = {"project": data.project, "customer": data.customer, "source_id": data.completion_id, "at": at}
    customer = None if any(erasure.takes(**subject) for erasure in around.erasures) else data.customer
    return {
        "project": data.project,
        "completion_id": data.completion_id,
        "scored": delivery.event.id,
        "position": LogPosition(partition=position.partition, offset=position.offset),
        "model_id": data.model_id,
        "user": None if customer is None else around.pseudonyms.of("user", customer),
    }


def _is_traffic(data: InferenceCompleted) -> bool:
    """Return whether it is a readable question of production or of a canary."""
    routed = data.role in (RouteRole.PRODUCTION, RouteRole.CANARY) and not (data.pinned or data.cancelled)
    return routed and data.fault != "client" and data.texts in LEGIBLE and bool(data.messages)


def _of_completion(data: InferenceCompleted) -> Fields:
    outcome = "cancelled" if data.cancelled else "answered" if data.error is None else "failed"
    use = data.retrieval
    return {
        "role": data.role,
        "pinned": data.pinned,
        "shadow_of": data.shadow_of,
        "at": data.completed_at,
        "client": data.client,
        "outcome": outcome,
        "fault": data.fault,
        "latency_seconds": data.latency_seconds,
        "first_token_seconds": data.first_token_seconds,
        "prompt_tokens": data.prompt_tokens,
        "completion_tokens": data.completion_tokens,
        "overrides": data.overrides,
        "truncated": data.finish_reason == "length",
        "similarity": use.similarity if use else None,
        "retrieval_sha256": use.retrieval_sha256 if use else None,
    }


def _of_answer(data: InferenceCompleted, around: Around) -> Fields:
    task, reference = around.task, around.reference
    if data.error is not None or data.cancelled:
        return {}
    legible = data.texts in LEGIBLE
    fields: Fields = {"format_valid": data.format_valid, "violations": data.violations}
    if not legible:
        return fields
    if data.format_valid is None:
        violations = task.form.violations(data.output, said_before(data.messages))
        fields = {"format_valid": not violations, "violations": violations}
    fields["label"] = task.label(data.output, reference.labels if reference else frozenset())
    if fields["label"] is None:
        fields["answer"] = around.pseudonyms.of("answer", " ".join(data.output.split()))
    found = {name: measure(data) for name, measure in MEASURES.items()}
    fields["measures"] = {name: value for name, value in found.items() if value is not None}
    fields["refusal"] = task.declines(data.output)
    fields["repetition"] = repetition(data.output)
    # With passages in the prompt their terms are no inventions, but the log does not hold their texts.
    if reference is not None and reference.terms and data.retrieval is None:
        system = " ".join(message.content for message in data.messages if message.role == "system")
        said = f"{task.spec.system_prompt}\n{system}\n{said_before(data.messages)}"
        fields["invented"] = invented(data.output, said, reference.terms)
    return fields


def _agrees(data: FeedbackReceived, task: Task) -> bool | None:
    """Return whether answer and correction have the same label; None: one of them has none."""
    if data.correction is None or data.output is None:
        return None
    correction = data.correction if isinstance(data.correction, str) else json.dumps(data.correction)
    labels = label_of(data.output, task.spec), label_of(correction, task.spec)
    return None if None in labels else labels[0] == labels[1]


def near(units: Vectors, alarms: Sequence[DriftDetected | AlarmOpened]) -> list[tuple[str, ...]]:
    """Return, for each row of ``units`` (texts, dimensions), the names of the alarms whose cluster contains
    it. Rows are unit vectors in the space of the centroids. A row of zeros is in no cluster."""
    known = [
        (alarm.alarm_id, alarm.cluster)
        for alarm in alarms[-MOST:]
        if alarm.alarm_id and alarm.cluster is not None and len(alarm.cluster.centroid) == units.shape[1]
    ]
    if not known:
        return [()] * len(units)
    centroids = unit_length(np.array([cluster.centroid for _, cluster in known]))
    inside = 1.0 - units @ centroids.T <= np.array([cluster.radius for _, cluster in known])
    inside &= np.linalg.norm(units, axis=1, keepdims=True) > 0
    return [tuple(name for (name, _), yes in zip(known, row, strict=True) if yes) for row in inside]
