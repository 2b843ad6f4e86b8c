"""The loop, once: from tickets to an adapter that answers, and a correction back in.

Every day a tiny random model turns, every night SmolLM2 does, until it drifts and has a second version. What
SmolLM2 adds is held every day where it is loaded alone: by the tests of training and evaluation. Drift by
itself is held by ``tests/month``, and on the log by ``integration/test_monitor``.
"""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import openai
import polars as pl
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.cache import cache_dir
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRequested,
    DatasetVersioned,
    RecordKind,
)
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.events.turns import LabelsRequested, TurnCompleted
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Trust
from tunewheel_contracts.topics import TopicSpec
from tunewheel_local.launch import Wheel
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.tiny import write_tiny_model

from ..integration.wheels import key_of, turning
from . import small_desk
from .collector import Collector
from .small_desk import PROJECT, Answers

pytestmark = [pytest.mark.e2e, pytest.mark.model]

SERVICES = ("engine", "ingest", "curate", "train", "eval", "registry", "gateway", "monitor")
QUESTION = "The charger shows a red light and the battery of my bike does not fill. What now?"
CORRECTION = {
    "category": "battery",
    "priority": "normal",
    "reply": "Unplug it for ten minutes, then try again.",
}


@dataclass(frozen=True)
class Drifted:
    """What followed from questions about something new: an alarm, labels, a version."""

    alarms: list[DriftDetected]
    wanted: LabelsRequested
    labels: int
    request: DatasetRequested
    version: DatasetVersioned


@dataclass(frozen=True)
class Turned:
    """What the turn left behind, and what was asked and said meanwhile."""

    spec: ProjectSpec
    events: dict[str, Envelope[Any]]
    published: int
    model_id: str
    answers: Answers
    feedback_id: str
    lineage: dict[str, Any]
    train: pl.DataFrame
    holdout: pl.DataFrame
    completed: TurnCompleted
    """The turn's end."""
    drifted: Drifted | None
    """None where the tiny model turns."""
    told: Collector
    """What the services told of themselves."""

    def of(self, topic: TopicSpec) -> list[Envelope[Any]]:
        return [event for event in self.events.values() if event.data.type == topic.name]

    def only(self, topic: TopicSpec) -> Envelope[Any]:
        (event,) = self.of(topic)
        return event


TINY, SMOLLM2 = "tiny", "smollm2"


@pytest.fixture(scope="module", params=[TINY, pytest.param(SMOLLM2, marks=pytest.mark.nightly("models"))])
def turned(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Turned:
    root = tmp_path_factory.mktemp("wheel")
    # Its context holds a ticket, byte by byte.
    base = str(write_tiny_model(root / "base", context=2048)) if request.param == TINY else None
    with Collector() as collector:  # processes tell the last when they end
        return asyncio.run(_turn(root, small_desk.spec(base), collector, drifts=base is None))


async def _turn(root: Path, spec: ProjectSpec, collector: Collector, *, drifts: bool) -> Turned:
    share_converted_models(root)
    base_model = spec.base_model
    environment = {
        "TUNEWHEEL_EVAL_REGRESSION_SET": str(small_desk.cut_regression_set(root / "published")),
        "TUNEWHEEL_OTLP_ENDPOINT": collector.url,
    }
    if not drifts:
        environment["TUNEWHEEL_ENCODED_PER_HOUR"] = "0"  # nothing here asks what the encoder says
    async with turning(root, SERVICES, environment=environment, base_model=base_model) as (wheel, feed):
        published = await small_desk.publish(wheel, root / "published", spec)
        model_id = (await small_desk.promoted(feed)).data.model_id
        url = f"{wheel.url_of('gateway')}/v1"
        key = key_of(wheel)
        async with openai.AsyncOpenAI(base_url=url, api_key=key, timeout=120, max_retries=0) as client:
            answers = await small_desk.ask(client, model_id, QUESTION)
        feedback_id = await small_desk.correct(wheel, answers.plain.id, CORRECTION)
        await feed.first(topics.RECORD_INGESTED, lambda e: e.data.kind is RecordKind.FEEDBACK)
        await feed.until(
            lambda: len(feed.by_topic[topics.INFERENCE_COMPLETED.name]) == 2,
            patience=small_desk.PATIENCE_SECONDS,
            what="both completions on the log",
        )
        dataset = root / "store" / "datasets" / feed.by_topic["dataset.versioned"][0].data.dataset_id
        path = f"/v1/projects/{PROJECT}/lineage/{model_id}?records=10000"
        registry = Endpoint.of("registry", wheel.plan.var)
        async with (
            aiohttp.ClientSession(registry.url, headers=registry.headers) as session,
            session.get(path) as told,
        ):
            lineage = await told.json()
        events = dict(feed.events)
        completed = await feed.first(topics.TURN_COMPLETED_V2)
        drifted = None
        if drifts:
            async with openai.AsyncOpenAI(base_url=url, api_key=key, timeout=120, max_retries=0) as client:
                drifted = await _drift(wheel, feed, client)
        return Turned(
            spec=spec,
            events=events,
            published=published,
            model_id=model_id,
            answers=answers,
            feedback_id=feedback_id,
            lineage=lineage,
            train=pl.read_parquet(dataset / "train.parquet"),
            holdout=pl.read_parquet(dataset / "holdout.parquet"),
            completed=completed.data,
            drifted=drifted,
            told=collector,
        )


async def _drift(wheel: Wheel, feed: EventFeed, client: openai.AsyncOpenAI) -> Drifted:
    """Ask about something new, answer what is wanted, and wait for the version; it is not trained here."""
    asked = await small_desk.ask_until_alarmed(client, feed)
    wanted = (await feed.first(topics.LABELS_REQUESTED)).data
    labels = await small_desk.answer(wheel, wanted, asked)
    request = await feed.first(topics.DATASET_REQUESTED, lambda e: e.data.reason is BuildReason.DRIFT)
    version = await feed.first(topics.DATASET_VERSIONED, lambda e: e.causation_id == request.id)
    return Drifted(
        alarms=[event.data for event in feed.by_topic[topics.DRIFT_DETECTED.name]],
        wanted=wanted,
        labels=labels,
        request=request.data,
        version=version.data,
    )


def share_converted_models(root: Path) -> None:
    """Let the wheel use the converted base model that the machine's cache holds, or put it there."""
    (cache_dir() / "models").mkdir(parents=True, exist_ok=True)
    (root / "cache").mkdir()
    (root / "cache" / "models").symlink_to(cache_dir() / "models")


def test_everything_published_became_a_record(turned: Turned) -> None:
    records = [e.data for e in turned.of(topics.RECORD_INGESTED) if e.data.kind is not RecordKind.FEEDBACK]
    assert len({record.record_id for record in records}) == turned.published
    assert sum(record.kind is RecordKind.DOCUMENT for record in records) == small_desk.SOPS


def test_the_adapter_beats_the_base_and_is_promoted(turned: Turned) -> None:
    verdict = turned.only(topics.EVAL_PASSED).data
    figures = {contestant.role: contestant.metrics for contestant in verdict.contestants}
    assert verdict.adapter.model_id == turned.model_id
    assert figures[Role.CANDIDATE]["perplexity"] < figures[Role.BASE]["perplexity"]
    if any(criterion.metric == "valid_output" for criterion in turned.spec.criteria):
        assert figures[Role.CANDIDATE]["valid_output"] >= figures[Role.BASE]["valid_output"]
    assert [e.data.to_stage.value for e in turned.of(topics.MODEL_PROMOTED)] == ["evaluated", "production"]


def test_the_official_client_is_answered_by_the_adapter(turned: Turned) -> None:
    answers = turned.answers
    assert {PROJECT, f"{PROJECT}/base", turned.model_id} <= answers.models
    assert answers.plain.model == turned.model_id
    assert answers.plain.usage is not None
    assert answers.plain.usage.completion_tokens > 0
    assert answers.chunks > 3
    assert answers.streamed_text == answers.plain.choices[0].message.content


def test_completions_are_on_the_log(turned: Turned) -> None:
    completions = {e.data.completion_id: e.data for e in turned.of(topics.INFERENCE_COMPLETED)}
    assert set(completions) == {turned.answers.plain.id, turned.answers.streamed_id}
    for completion in completions.values():
        assert completion.model_id == turned.model_id
        assert completion.output == turned.answers.streamed_text
        assert completion.messages[-1].content == QUESTION
    assert completions[turned.answers.streamed_id].streamed


def test_a_correction_becomes_a_record(turned: Turned) -> None:
    feedback = turned.only(topics.FEEDBACK_RECEIVED)
    assert feedback.data.feedback_id == turned.feedback_id
    (record,) = [e for e in turned.of(topics.RECORD_INGESTED) if e.data.kind is RecordKind.FEEDBACK]
    assert record.causation_id == feedback.id
    assert record.data.input == QUESTION
    assert record.data.trust is Trust.CORRECTED
    assert CORRECTION["reply"] in record.data.output


def test_causation_leads_from_the_model_to_the_request(turned: Turned) -> None:
    edges = {(edge["source"], edge["target"]) for edge in turned.lineage["edges"]}
    dataset = turned.only(topics.DATASET_VERSIONED)
    run = turned.only(topics.TRAIN_COMPLETED).data.run_id
    chain = [dataset.causation_id, dataset.data.dataset_id, run, turned.model_id]
    assert set(itertools.pairwise(chain)) <= edges


def test_lineage_reaches_every_ticket_that_survived_curation(turned: Turned) -> None:
    published = {event.id for event in turned.of(topics.TICKET_PUBLISHED)}
    records = {e.data.record_id: e for e in turned.of(topics.RECORD_INGESTED)}
    survivors = {
        record_id
        for frame in (turned.train, turned.holdout)
        for names in frame["record_ids"].to_list()
        for record_id in names
    }
    assert survivors
    origins = {n["id"]: n["facts"] for n in turned.lineage["nodes"] if n["kind"] == "record"}
    assert survivors <= set(origins)
    for record_id in survivors:
        assert origins[record_id]["source_event_id"] == records[record_id].causation_id
        assert records[record_id].causation_id in published


@pytest.mark.parametrize(
    "topic",
    [
        topics.DATASET_VERSIONED,
        topics.TRAIN_STARTED,
        topics.TRAIN_PROGRESSED,
        topics.TRAIN_COMPLETED,
        topics.EVAL_PASSED,
        topics.MODEL_PROMOTED,
    ],
    ids=lambda topic: topic.name,
)
def test_one_correlation_id_spans_the_turn(turned: Turned, topic: TopicSpec) -> None:
    turn = f"turn-{turned.only(topics.DATASET_VERSIONED).data.dataset_id}"
    assert {event.correlation_id for event in turned.of(topic)} == {turn}


def test_one_trace_leads_from_the_request_to_what_is_served(turned: Turned) -> None:
    request = turned.only(topics.DATASET_VERSIONED).causation_id
    spans = turned.told.spans
    (trace_id,) = {span.trace_id for span in spans if span.attributes.get("messaging.message.id") == request}
    turn = {(span.service, span.name): span for span in spans if span.trace_id == trace_id}
    hops = {
        ("curate", "dataset.requested publish"),
        ("curate", "dataset.requested process"),
        ("curate", "build process"),
        ("train", "dataset.versioned process"),
        ("train", "train process"),
        ("eval", "train.completed process"),
        ("eval", "measuring process"),
        ("registry", "eval.passed process"),
        ("registry", "model.promoted, serving.desired publish"),
    }
    assert hops <= set(turn)
    for job, worker in (
        (("curate", "dataset.requested process"), ("curate", "build process")),
        (("train", "dataset.versioned process"), ("train", "train process")),
        (("eval", "train.completed process"), ("eval", "measuring process")),
    ):
        assert turn[job].seconds > turn[worker].seconds, "a job's span ends with the job"


def test_a_completion_is_one_trace_from_the_gateway_to_the_engine(turned: Turned) -> None:
    asked = [s for s in turned.told.spans if s.attributes.get("url.path") == "/v1/chat/completions"]
    traces = {
        service: {s.trace_id for s in asked if s.service == service}
        for service in ("serve-gateway", "engine")
    }
    assert len(traces["serve-gateway"]) >= 2
    assert traces["engine"] >= traces["serve-gateway"], "the rest asked for fingerprints"


def test_logs_and_metrics_reach_the_collector(turned: Turned) -> None:
    on_the_bus = {"ingest", "curate", "train", "eval", "registry", "serve-gateway", "monitor"}
    assert {service for service, event in turned.told.logs if event == "ready"} == on_the_bus
    ready = {service for service, name in turned.told.metrics if name == "tunewheel.ready"}
    assert ready == on_the_bus | {"engine"}
    measured = {name for service, name in turned.told.metrics if service == "train"}
    assert {"tunewheel.handler.seconds", "tunewheel.consumer.lag", "tunewheel.train.tokens"} <= measured


def test_what_is_served_belongs_to_the_turn(turned: Turned) -> None:
    turn = f"turn-{turned.only(topics.DATASET_VERSIONED).data.dataset_id}"
    desired = turned.of(topics.SERVING_DESIRED)[-1]
    assert [route.model_id for route in desired.data.desired.routes] == [turned.model_id]
    assert desired.correlation_id == turn
    registered = {e.data.kind: e.correlation_id for e in turned.of(topics.MODEL_REGISTERED)}
    assert registered == {"base": turn, "adapter": turn}


def test_the_turn_is_completed_by_its_promotion(turned: Turned) -> None:
    completed = turned.completed
    assert completed.outcome == "promoted"
    assert completed.model_id == turned.model_id
    assert completed.dataset_id == turned.only(topics.DATASET_VERSIONED).data.dataset_id
    assert turned.only(topics.EVAL_PASSED).id in completed.verdicts
    assert completed.cost["hours"] > 0


@pytest.mark.parametrize(
    "turned", [pytest.param(SMOLLM2, marks=pytest.mark.nightly("models"))], indirect=True
)
def test_questions_about_something_new_lead_to_labels_and_these_to_a_version(turned: Turned) -> None:
    drifted = turned.drifted
    assert drifted is not None
    names = {alarm.alarm_id for alarm in drifted.alarms}
    assert {alarm.model_id for alarm in drifted.alarms} == {turned.model_id}
    assert drifted.wanted.alarm_id in names
    assert drifted.wanted.completion_ids
    assert set(drifted.request.alarm_ids) <= names
    assert drifted.version.reason is BuildReason.DRIFT
    first = turned.only(topics.DATASET_VERSIONED).data
    assert drifted.version.previous == first.dataset_id
    assert first.counts.replay > 0
    new = drifted.version.counts.examples - first.counts.examples
    assert 0 < new <= drifted.labels + 1, "the answers, and the correction that came before"
