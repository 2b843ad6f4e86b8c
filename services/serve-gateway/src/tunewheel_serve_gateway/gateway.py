"""Builds the parts of one gateway, starts them and stops them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import structlog
from opentelemetry.metrics import Meter
from tunewheel_contracts.erasures import place_of, proof_of
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, KafkaRecord
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import ErasureRequested, FeedbackReceived, ProjectDeclared
from tunewheel_contracts.topics import INDEX_VERSIONED, TopicSpec
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.waiting import end_all, reporting

from tunewheel_serve_gateway import prompt_request, responses_request
from tunewheel_serve_gateway.abstaining import Abstaining
from tunewheel_serve_gateway.adapter_files import AdapterFiles
from tunewheel_serve_gateway.answering import Answering
from tunewheel_serve_gateway.catalog import Catalog
from tunewheel_serve_gateway.chat import ChatCompletions
from tunewheel_serve_gateway.choosing import Choosing
from tunewheel_serve_gateway.completions.ids import CompletionIds
from tunewheel_serve_gateway.completions.log import CompletionLog, Publish
from tunewheel_serve_gateway.completions.recall import Forgetting, Recall, Recalled, RecentCompletions, Search
from tunewheel_serve_gateway.completions.recording import Recorder
from tunewheel_serve_gateway.completions.spool import Spool
from tunewheel_serve_gateway.embeddings import Embeddings
from tunewheel_serve_gateway.errors import Unavailable, UnknownModel
from tunewheel_serve_gateway.fallbacks import Fallbacks
from tunewheel_serve_gateway.feedback import as_allowed
from tunewheel_serve_gateway.limits.admitting import make_admission
from tunewheel_serve_gateway.limits.in_flight import InFlight
from tunewheel_serve_gateway.logprobs import LogprobSample
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.outcomes import Outcomes
from tunewheel_serve_gateway.prompt_request import parse_prompt_request
from tunewheel_serve_gateway.reconcile import Reconciler
from tunewheel_serve_gateway.responses_request import parse_responses_request
from tunewheel_serve_gateway.retrieval.retriever import make_retriever
from tunewheel_serve_gateway.routing import ProjectTable, RouteTable
from tunewheel_serve_gateway.search import Search as DocumentSearch
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.snapshot import Snapshot
from tunewheel_serve_gateway.status import status_of
from tunewheel_serve_gateway.upstream.pool import make_pool

log = structlog.get_logger(__name__)
HOLDER = "serve-gateway"
FORGET_SECONDS = 10.0
"""Longest wait for the broker to accept the completions that share a file with an erased one."""
FIRST_LOOK_SECONDS = 2.0
"""Longest wait, before the first request is answered, for the engines to list their models. Which model may
stand in for another depends on these lists."""
FIRST_INDEXES_SECONDS = 10.0
"""Longest wait, before the first request is answered, for the projects' indexes to be opened."""

Wrap = Callable[[Any], Envelope[Any]]
PublishMany = Callable[[Sequence[Envelope[Any]]], Awaitable[None]]
Fail = Callable[[BaseException], None]


class Gateway:
    """Everything between the HTTP surface and the log.

    The callables come from the service. ``wrap`` makes an envelope of an event. ``publish_many`` publishes
    envelopes, ``send`` encoded records. ``fail`` stops the process with an error. ``warn`` shows a named
    warning in the service's health; the text None takes the warning back. ``search`` finds a completion on
    the log by its id, from a given time on.

    Raises:
        InvalidTemplate, InvalidTls: see ``make_pool``.
    """

    def __init__(
        self,
        settings: Settings,
        store: ObjectStore,
        meter: Meter,
        wrap: Wrap,
        publish_many: PublishMany,
        send: Publish,
        search: Search,
        fail: Fail,
        warn: Warn = lambda _, __: None,
    ) -> None:
        self._settings = settings
        self._store = store
        self._forgetting = Forgetting()
        self._wrap = wrap
        self._publish_many = publish_many
        self._send_records = send
        self._fail = fail
        self._warn = warn
        self.metrics = Metrics(meter)
        self.in_flight = InFlight(settings, self.metrics)
        folder = settings.work_for("serve-gateway")
        self.catalog = Catalog()
        self._from_log = Catalog()
        """What was read from the log so far; the same as ``catalog`` once the log was read to its end."""
        self._snapshot = Snapshot(folder / "snapshot.jsonl", settings, warn)
        self.pool = make_pool(settings, lambda name: name not in self.catalog.base_names, self.metrics)
        files = AdapterFiles(store, settings.adapter_root)
        self.reconciler = Reconciler(self.catalog, files, self.pool, self.metrics, settings, warn)
        self._recent = RecentCompletions(
            limit=settings.recent_completions, limit_bytes=settings.recent_completion_bytes
        )
        secret = settings.completion_secret
        self._ids = CompletionIds(secret.get_secret_value() if secret else None, folder)
        self._recall = Recall(self._recent, self._ids, search, self._forgetting.takes)
        self.log = CompletionLog(
            Recorder(self.catalog.spec, lambda: self._ids.secret),
            self._send,
            self.metrics,
            Spool(folder / "completions", limit_bytes=settings.completion_log_bytes),
            remember=self._recent.remember,
            is_erased=self._forgetting.takes,
            warn=warn,
            batch=settings.completion_batch,
            linger_seconds=settings.completion_linger_seconds,
        )
        self._outcomes = Outcomes(self.pool, self.reconciler, self.log, self._ids, self.metrics, settings)
        self.retriever = make_retriever(settings, store, self.catalog.spec, self.metrics)
        choosing = Choosing(self.reconciler, self.catalog, self.retriever, self.metrics, settings)
        self._fallbacks = Fallbacks(self.catalog.spec, settings, self.metrics, warn)
        answering = Answering(
            self.pool,
            choosing,
            self._outcomes,
            self._ids,
            settings,
            LogprobSample(settings.confidence_share),
            Abstaining(self.catalog.spec),
            self._fallbacks,
        )
        self.admission = make_admission(settings, self.metrics)
        self.embeddings = Embeddings(
            self.retriever.embedders, self.catalog.spec, self.admission, settings.dropped
        )
        self.search = DocumentSearch(self.retriever, self.admission)
        self.chat = ChatCompletions(
            answering, choosing, self.admission, self.in_flight, self.require_started, self.metrics, settings
        )
        self.prompts = replace(self.chat, parse=parse_prompt_request, words=prompt_request.WORDS)
        self.responses = replace(self.chat, parse=parse_responses_request, words=responses_request.WORDS)
        self._beginning = asyncio.Lock()
        self._reconciling: asyncio.Task[None] | None = None
        self._answers = False

    @property
    def table(self) -> RouteTable:
        return self.reconciler.table

    @property
    def has_read_log(self) -> bool:
        """Whether the log was read to its end since the start."""
        return self._from_log is self.catalog

    def take(self, event: Envelope[Any]) -> None:
        """Take over an event by which the gateway serves."""
        self._from_log.take(event)
        if isinstance(event.data, IndexVersioned) and self.has_read_log:
            self.retriever.indexes.on_versioned(event.data)
        self._on_change(event.project, rebuild=isinstance(event.data, ServingDesired | ProjectDeclared))

    def remove(self, topic: TopicSpec, project: str) -> None:
        """Take over a tombstone of ``topic``."""
        self._from_log.remove(topic, project)
        if topic is INDEX_VERSIONED and self.has_read_log:
            self.retriever.indexes.on_removed(project)
        self._on_change(project, rebuild=topic is not INDEX_VERSIONED)

    def _on_change(self, project: str, *, rebuild: bool) -> None:
        self._snapshot.changed.set()
        self._warn(f"desired_refused {project}", self._from_log.refusals.get(project))
        if rebuild and self.has_read_log:  # While the views are read at the start, no table is needed yet.
            self.retriever.indexes.on_change(project)
            self.reconciler.on_change()

    def on_erasure_requested(self, event: Envelope[ErasureRequested]) -> None:
        """Drop the erased completions from this process's memory and disk. Every gateway process does so."""
        self._recent.forget(self._forgetting.apply(event))
        self.log.forget()

    async def forgotten(self, event: Envelope[ErasureRequested]) -> ErasureCompleted:
        """Return the proof of erasure once this process and its disk hold nothing that ``event`` erases.
        Raises TransientError: the broker or the store is away."""
        await self.log.forgotten(timeout_seconds=FORGET_SECONDS)
        path = f"{place_of(event.project, event.id)}.{HOLDER}"
        first = await self._store.first(path, str(self._forgetting.count(event.id)).encode())
        return proof_of(event.data, holder=HOLDER, erased_by=HOLDER, records=int(first))

    async def _send(self, records: Sequence[KafkaRecord]) -> None:
        """Publish completions. They wait until the erasures on the log were read. Raises TransientError."""
        if not self.has_read_log:
            raise TransientError("Kafka was not read since the start")
        await self._send_records(records)

    async def start(self) -> None:
        """Begin to answer by what was read from the log. Engines need not be reachable yet; until then
        clients get 503. Raises UnusableSpool."""
        if not self.has_read_log:
            self._replace_catalog(self._from_log)
            self._from_log = self.catalog
            self._warn("kafka_not_read", None)
        await self._begin()
        self._snapshot.start(self.catalog).add_done_callback(reporting(self._fail))

    async def start_without_log(self) -> bool:
        """Begin to answer by the snapshot on the disk, because Kafka does not answer. Return whether there is
        one. ``start`` replaces everything that came from it. Raises UnusableSpool."""
        found = await asyncio.to_thread(self._snapshot.read)
        if found is None or self.has_read_log:
            return False
        self._replace_catalog(found.catalog)
        self._warn(
            "kafka_not_read",
            "Kafka has not answered since the start: models are served by what this gateway had read until "
            f"{found.written_at}. Later decisions count, and completions are published, once it answers",
        )
        await self._begin()
        return True

    def _replace_catalog(self, found: Catalog) -> None:
        gone = self.catalog.indexes.keys() - found.indexes.keys()
        self.catalog.replace_by(found)
        for project in gone:
            self.retriever.indexes.on_removed(project)
        for index in found.indexes.values():
            self.retriever.indexes.on_versioned(index.data)

    async def _begin(self) -> None:
        async with self._beginning:
            self.reconciler.on_change()  # the first request must not find an empty table
            if self._reconciling is not None:
                return
            await self.log.recover([project.project for project in self.catalog.projects()])
            self._ids.open()
            self._reconciling = asyncio.create_task(self.reconciler.run(), name="reconciler")
            for task in (self._reconciling, self.log.start()):
                task.add_done_callback(reporting(self._fail))
            await asyncio.gather(
                self.reconciler.look(timeout_seconds=FIRST_LOOK_SECONDS),
                self.retriever.indexes.start(timeout_seconds=FIRST_INDEXES_SECONDS),
            )
            self._answers = True

    async def close(self) -> None:
        """Stop, and hand what is still waiting to the broker."""
        self._answers = False
        await end_all(self._reconciling)
        self._reconciling = None
        await self._snapshot.close(self.catalog)
        await self.reconciler.close()
        await self.retriever.close()
        await self._outcomes.close()
        try:
            await self.log.close(timeout_seconds=self._settings.shutdown_seconds / 2)
        finally:
            await self.admission.close()
            await self._fallbacks.close()
            await self.pool.close()

    def require_started(self) -> None:
        """Refuse requests before the views have been read, and once the gateway is stopping. Raises
        Unavailable."""
        if not self._answers:
            raise Unavailable("the gateway is starting or stopping; try again shortly", retry_after="2")

    async def recall(self, completion_id: str, caller: Caller) -> Recalled:
        """Return the completion that a feedback is about; see ``Recall.find``."""
        return await self._recall.find(completion_id, caller, self.table.projects)

    async def publish_feedback(self, data: FeedbackReceived) -> None:
        """Publish ``data`` without the texts that the project's ``serving.log`` excludes. Return once the
        broker has acknowledged it. Raises Unprocessable: see ``as_allowed``."""
        allowed = await asyncio.to_thread(as_allowed, data, self.catalog.spec(data.project))
        await self._publish_many([self._wrap(allowed)])
        self.metrics.add("feedback.received")

    def project_of(self, model: str, allowed: Collection[str] | None) -> ProjectTable:
        """Return the project whose model ``model`` is, any name that a request may have. Raises
        UnknownModel."""
        try:
            project = self.table.find(model, draw=0.0, allowed=allowed).project
        except UnknownModel:
            version = self.catalog.version(model)
            if version is None or (allowed is not None and version.project not in allowed):
                raise
            project = version.project
        return self.table.projects[project]

    def status(self, allowed: Collection[str] | None) -> dict[str, Any]:
        """Return what is served for the projects in ``allowed``; see ``status_of``."""
        status = status_of(allowed, self.catalog, self.reconciler, self.pool, self.retriever)
        if allowed is None:
            status["engine"]["url"] = self._settings.engine_url
            status["remembered_completions"] = len(self._recent)
        return status
