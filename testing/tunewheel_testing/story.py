"""Builds the events of one project, like the contracts' examples but for what a test names."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.topics import BY_NAME

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts/examples"
START = datetime(2026, 3, 2, 8, tzinfo=UTC)
PROJECT = "desk"


@cache
def example(topic: str, name: str = "") -> dict[str, Any]:
    """Return the data of a topic's valid example; without ``name`` the first. Callers must not change it."""
    (file,) = sorted((EXAMPLES / topic / "valid").glob(f"{name or '*'}.json"))[:1]
    return json.loads(file.read_text(encoding="utf-8"))


def adapter_of(model_id: str) -> dict[str, Any]:
    return example("train.completed", "planned")["adapter"] | {"model_id": model_id}


class Story:
    """The events of one project, in the order in which they happened, ``every`` so often."""

    every = timedelta(minutes=1)

    def __init__(self, project: str = PROJECT, start: datetime = START) -> None:
        self.project = project
        self.events: list[Envelope[Any]] = []
        self.now = start

    def tell(self, topic: str, by: Envelope[Any] | None = None, /, **fields: Any) -> Envelope[Any]:
        """Add an event of ``fields`` alone, caused by ``by``."""
        return self.add(BY_NAME[topic].event.model_validate({"project": self.project} | fields), by)

    def say(
        self, topic: str, by: Envelope[Any] | None = None, /, *, like: str = "", **fields: Any
    ) -> Envelope[Any]:
        """Add an event like the example ``like`` but for ``fields``, caused by ``by``."""
        data = BY_NAME[topic].event.model_validate(example(topic, like) | {"project": self.project} | fields)
        return self.add(data, by)

    def add(
        self, data: Any, by: Envelope[Any] | None = None, *, ahead: timedelta = timedelta(0)
    ) -> Envelope[Any]:
        """Add an event of a service whose clock is ``ahead``."""
        self.events.append(new_event(data, source="/test", cause=by, time=self.now + ahead))
        self.pass_time()
        return self.events[-1]

    def pass_time(self) -> None:
        self.now += self.every

    def request(self, name: str = "r-1", **fields: Any) -> Envelope[Any]:
        """Ask for a version of named records: this begins a turn."""
        told = {"reason": "count", "alarm_ids": [], "records_upto": {"0": 3}} | fields
        return self.say("dataset.requested", like="named", request=name, **told)

    def version(self, request: Envelope[Any], dataset_id: str, **fields: Any) -> Envelope[Any]:
        return self.say("dataset.versioned", request, like="first", dataset_id=dataset_id, **fields)

    def train(self, what: str, dataset_id: str, *, like: str = "", **fields: Any) -> Envelope[Any]:
        """Add ``train.<what>`` of the version's run; a completed run makes the version's model."""
        run_id = f"run-{dataset_id}"
        if what == "completed":
            fields |= {"adapter": adapter_of(model_of(dataset_id))}
        if what != "progressed":
            fields |= {"dataset_id": dataset_id}
        return self.say(f"train.{what}", like=like, run_id=run_id, **fields)

    def judge(self, topic: str, dataset_id: str, **fields: Any) -> Envelope[Any]:
        """Add a verdict about the version's model, or a request for its review."""
        adapter = adapter_of(model_of(dataset_id))
        return self.say(topic, run_id=f"run-{dataset_id}", dataset_id=dataset_id, adapter=adapter, **fields)


def model_of(dataset_id: str) -> str:
    """Return the model that a story's run makes of a version."""
    return f"model-{dataset_id}"
