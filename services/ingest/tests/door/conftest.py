"""The API in this process, on a real store in memory; what it publishes is kept instead of sent."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi import FastAPI
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.identity import content_sha256
from tunewheel_ingest.door.app import make_api
from tunewheel_ingest.door.quota import Quota
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.log import MemoryLog

MAX_BODY_BYTES = 4 << 20
MAX_DOCUMENT_BYTES = 8 << 20
LIMITS = {
    "max_body_bytes": MAX_BODY_BYTES,
    "publish_batch": 10,
    "max_document_bytes": MAX_DOCUMENT_BYTES,
}
KEYS = {
    "desk": {"roles": ["publisher"], "projects": ["p"]},
    "other": {"roles": ["publisher"], "projects": ["q"]},
    "everywhere": {"roles": ["publisher"]},
    "lead": {"roles": ["publisher", "expert"], "projects": ["p"]},
    "elsewhere": {"roles": ["publisher"], "projects": ["p"], "groups": ["experts-of-q"]},
    "dpo": {"roles": ["operator"], "projects": ["p"]},
}


class Log(MemoryLog):
    """An intake that knows the projects ``p`` and ``q`` and keeps what is published."""

    wrap = MemoryLog.new
    quota = Quota(None)

    async def publish(self, envelopes: list[Envelope[Any]]) -> None:  # type: ignore[override]
        await self.publish_many(envelopes)
        self.quota.charge(envelope.project for envelope in envelopes)

    def admit(self, project: str) -> None:
        self.quota.admit(project)

    async def check_project(self, project: str) -> None:
        if project not in ("p", "q"):
            raise InvalidEvent(field="project", reason=f"{project!r} is not declared; declare it")

    def source(self, project: str, name: str) -> None:
        return None


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory://")


def make_app(log: Log, store: ObjectStore, settings: HttpSettings, **limits: int) -> FastAPI:
    """Return the API behind its guard."""
    app = make_api(log, store, **{**LIMITS, **limits})
    guard(app.routes, Access(settings, warn=print))
    return app


def client_of(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://ingest")


@pytest.fixture
async def client(log: Log, store: ObjectStore) -> AsyncIterator[httpx.AsyncClient]:
    """Where nobody asks who calls."""
    async with client_of(make_app(log, store, HttpSettings(identity="open"))) as client:
        yield client


@pytest.fixture
async def guarded(log: Log, store: ObjectStore, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Where the callers of ``KEYS`` are known, each by its name as the key."""
    file = tmp_path / "keys.yaml"
    keys = {name: {"sha256": content_sha256(name.encode()), **entry} for name, entry in KEYS.items()}
    groups = {"experts-of-q": {"roles": ["expert"], "projects": ["q"]}}
    file.write_text(yaml.safe_dump({"keys": keys, "groups": groups}))
    settings = HttpSettings(identity="required", api_keys_file=file)
    async with client_of(make_app(log, store, settings)) as client:
        yield client


def key(name: str, **headers: str) -> dict[str, str]:
    return {"authorization": f"Bearer {name}", **headers}
