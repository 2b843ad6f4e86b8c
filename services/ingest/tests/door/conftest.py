"""The API in this process, on a real store in memory; what it publishes is kept instead of sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_ingest.door.app import make_api
from tunewheel_runtime.store import ObjectStore

MAX_BODY_BYTES = 4 << 20
MAX_DOCUMENT_BYTES = 8 << 20


@dataclass
class Log:
    """An intake that knows the project ``p`` and keeps what is published."""

    events: list[Envelope[Any]] = field(default_factory=list)
    away: bool = False

    async def check_project(self, project: str) -> None:
        if project != "p":
            raise InvalidEvent(field="project", reason=f"{project!r} is not declared; declare it")

    def wrap(self, data: Any) -> Envelope[Any]:
        return new_event(data, source="/tests")

    async def publish(self, envelopes: list[Envelope[Any]]) -> None:
        if self.away:
            raise TransientError("cannot publish")
        self.events += envelopes


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory://")


@pytest.fixture
def app(log: Log, store: ObjectStore) -> FastAPI:
    return make_api(
        log,
        store,
        max_body_bytes=MAX_BODY_BYTES,
        publish_batch=10,
        max_document_bytes=MAX_DOCUMENT_BYTES,
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as client:
        yield client
