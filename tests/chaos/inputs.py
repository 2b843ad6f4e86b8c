"""What a service of the fault matrix is given: the recorded log of two turns (``tests/frozen``), topic by
topic, and an example of the contracts for each consumed topic that this log does not have."""

from __future__ import annotations

import base64
import contextlib
import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tunewheel_contracts.event import new_event
from tunewheel_contracts.topics import TOPICS, TopicSpec
from tunewheel_testing.story import EXAMPLES
from tunewheel_testing.tiny import write_tiny_model

from ..frozen.record import BASE
from ..frozen.snapshot import Line, load_log

SNAPSHOT = Path(__file__).parents[1] / "frozen" / "2026-11"
PROJECT = "frozen"
ELSEWHERE = "elsewhere"
"""The project of events that a service only checks, because it publishes them itself."""
PACKAGES = {
    "ingest": "tunewheel_ingest",
    "curate": "tunewheel_curate",
    "train": "tunewheel_train",
    "eval": "tunewheel_eval",
    "registry": "tunewheel_registry",
    "serve-gateway": "tunewheel_serve_gateway",
    "monitor": "tunewheel_monitor",
    "index": "tunewheel_index",
}
THEN = datetime(2026, 11, 30, tzinfo=UTC)
"""When the events happened that the recorded log does not have."""
LOADING = ("train", "eval")
"""Services that load the base model of the recorded log."""
MAIN = {
    "ingest": "ticket.published",
    "curate": "record.ingested",
    "train": "dataset.versioned",
    "eval": "train.completed",
    "registry": "eval.passed",
    "serve-gateway": "erasure.requested",
    "monitor": "inference.completed",
    "index": "erasure.requested",
}
"""The topic whose first event is on its way when a service is struck once."""
LEAVES = {
    "ingest": 66,
    "curate": 4,
    "train": 3,
    "eval": 7,
    "registry": 14,
    "serve-gateway": 1,
    "monitor": 9,
    "index": 1,
}
"""How many events and dead letters a service leaves at least. With fewer, a fault would be compared with what
an unfinished service left."""
NOT_GIVEN = {"curate": ("builds", "datasets")}
"""Folders of the recorded store that a service fills itself, and finds empty. Train and eval find their runs
and scorecards: the deaths in the middle of those are tried elsewhere."""
QUICK = {
    "TUNEWHEEL_IDENTITY": "open",  # The recorded log is older than signatures.
    "TUNEWHEEL_RETRY_FIRST_DELAY_SECONDS": "0.1",
    "TUNEWHEEL_RETRY_MAX_DELAY_SECONDS": "2",
    "TUNEWHEEL_POLICY_SECONDS": "0.5",
    "TUNEWHEEL_BUILD_RETRY_SECONDS": "0",
    "TUNEWHEEL_BUILD_ATTEMPTS": "100",  # More deaths come in the middle of one build than the default allows.
    "TUNEWHEEL_EVAL_WAIT_SECONDS": "0",
    "TUNEWHEEL_CLOCK_SECONDS": "0.5",
    "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
    "TUNEWHEEL_TRAIN_DTYPE": "float32",
    "TUNEWHEEL_TRAIN_THREADS": "1",
    "TUNEWHEEL_EVAL_THREADS": "1",
    "TUNEWHEEL_UPSTREAM_DAYS": "-1",
    "TUNEWHEEL_RECORD_DAYS": "-1",
}


def groups_of(service: str, folder: Path) -> list[str]:
    """Return the topics of the service's consumer groups, in the order of the contracts. The group that
    elects the active process handles nothing."""
    package = PACKAGES[service]
    environment = QUICK | {"TUNEWHEEL_STORE_URL": folder.as_uri(), "TUNEWHEEL_CACHE_DIR": str(folder)}
    with changed(environment):
        settings = importlib.import_module(f"{package}.settings").Settings()
        app = importlib.import_module(f"{package}.main").make_app(settings)
    topics = {topic for group, topic in app.groups if not group.endswith(".active")}
    return [spec.name for spec in TOPICS if spec.name in topics]


def place_base_model(service: str, folder: Path) -> None:
    """Write the base model of the recorded log below ``folder``, in which the service runs, if it has one."""
    if service in LOADING:
        write_tiny_model(folder / BASE)


@contextlib.contextmanager
def changed(environment: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Input:
    """What a service finds on the log, by topic."""

    def __init__(self, service: str, groups: Sequence[str]) -> None:
        self.groups = groups
        self.specs = [t for t in TOPICS if service in (*t.producers, *t.consumers, *t.replayed_by)]
        self.made = [t for t in self.specs if service in t.producers]
        recorded: dict[str, list[Line]] = {}
        for line in load_log(SNAPSHOT):
            recorded.setdefault(line.topic, []).append(line)
        own = {t.name for t in self.made}
        self.lines: dict[str, list[Line]] = {}
        for spec in self.specs:
            if spec.name in own and spec.name not in groups:
                continue
            lines = [] if spec.producers == (service,) else recorded.get(spec.name, [])
            if "upstream" not in spec.producers:  # What came in over HTTP is an input.
                lines = [line for line in lines if line.source != f"/tunewheel/{service}"]
            if spec.name in groups and not lines:
                lines = [self._example(spec, ELSEWHERE if spec.name in own else PROJECT)]
            self.lines[spec.name] = lines

    @property
    def context(self) -> list[Line]:
        """What the service replays and has no group for, and the declared project."""
        return [line for topic, lines in self.lines.items() if topic not in self.groups for line in lines]

    def _example(self, spec: TopicSpec, project: str) -> Line:
        file = min((EXAMPLES / spec.name / "valid").glob("*.json"))
        data = json.loads(file.read_text("utf-8")) | {"project": project}
        # A build is named by when a document was withdrawn, among others: each side must be given the same.
        record = new_event(spec.event.model_validate(data), source="/test", time=THEN).to_kafka()
        headers = [(name, _text(value or b"")) for name, value in record.headers.items()]
        return Line(spec.name, 0, _text(record.key), _text(record.value), headers)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()
