"""The doctor's look at what lies beside Kafka: the object store, the engines, the ports of health."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunewheel_contracts.errors import TransientError

from tunewheel_cli.doctor.findings import Finding, fine, listed, unknown, wrong
from tunewheel_cli.endpoint import Endpoint
from tunewheel_cli.http import open_session
from tunewheel_cli.service_health import ServiceHealth, ask_health, clock_of

FOLDER = "doctor"
"""In the store, for an object that is removed again."""
ENGINE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Look:
    """What was found, and by the name of what was asked which time it is there."""

    findings: tuple[Finding, ...]
    clocks: Mapping[str, datetime]


async def look_at_store(url: str) -> Look:
    """Create, read, list and remove an object, and see that what is there is not overwritten."""
    from obstore.exceptions import BaseError
    from tunewheel_runtime.store import ArtifactConflict, ObjectStore

    fix = "check TUNEWHEEL_STORE_URL, the credentials in the environment, and what they allow below this URL"
    path = f"{FOLDER}/{uuid.uuid4().hex}"
    try:
        store = await asyncio.to_thread(ObjectStore, url)
        try:
            await store.put(path, b"first")
            found = fine("store", f"{url}: objects are created once, read, listed and removed")
            try:
                await store.put(path, b"second")
            except ArtifactConflict:
                pass
            else:
                text = f"{url} overwrites an object that was to be created only where there is none"
                found = wrong("store", text, "use a store that obeys If-None-Match: * on PUT")
            if await store.read(path) is None:
                found = wrong("store", f"{url} does not have what was just written", "use a consistent store")
            written = (await store.written(FOLDER)).get(path)
        finally:
            await store.delete([path])
    except (TransientError, BaseError, OSError, ValueError) as error:
        return Look((wrong("store", f"{url}: {error}", fix),), {})
    return Look((found,), {} if written is None else {"the store": written})


async def look_at_engines(engines: Sequence[Endpoint]) -> Look:
    """Ask each engine for its models, as the gateway does."""
    import aiohttp

    findings: list[Finding] = []
    clocks: dict[str, datetime] = {}
    for engine in engines:
        timeout = aiohttp.ClientTimeout(total=ENGINE_SECONDS)
        try:
            async with open_session(timeout=timeout, headers=engine.headers) as session:
                finding, clock = await _ask_engine(session, engine.url)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            text = f"{engine.url} does not answer as an engine does: {str(error) or type(error).__name__}"
            finding, clock = wrong("engine", text, "start it, or mend TUNEWHEEL_ENGINE_URL"), None
        findings.append(finding)
        if clock is not None:
            clocks[f"the engine at {engine.url}"] = clock
    return Look(tuple(findings), clocks)


async def _ask_engine(session: Any, url: str) -> tuple[Finding, datetime | None]:
    for path in ("/v1/models", "/info"):  # vLLM and the local engine, TGI
        async with session.get(f"{url}{path}") as answer:
            clock = clock_of(answer.headers)
            if answer.status in (401, 403):
                fix = "set TUNEWHEEL_ENGINE_API_KEY to a key that the engine knows"
                return wrong("engine", f"{url} answers {answer.status} to this key", fix), clock
            if answer.status == 404:
                continue
            if answer.status != 200:
                return wrong("engine", f"{url}{path} answers {answer.status}", "read the engine's log"), clock
            told = await answer.json()
            models = [str(model["id"]) for model in told.get("data", ())] or [str(told.get("model_id", ""))]
            return fine("engine", f"{url} serves {listed(models)}"), clock
    return wrong("engine", f"{url} has neither /v1/models nor /info", "mend TUNEWHEEL_ENGINE_URL"), None


async def look_at_processes(urls: Sequence[str]) -> Look:
    """Ask processes how they are, at their ports of health."""
    answers = await ask_health(urls)
    clocks = {f"{one.service} at {one.url}": one.clock for one in answers if one.clock is not None}
    return Look(tuple(finding for one in answers for finding in _health(one)), clocks)


def _health(one: ServiceHealth) -> list[Finding]:
    name = f"{one.service} at {one.url}".strip()
    if one.error:
        fix = "start the process, or mend --health-urls"
        return [wrong("services", f"{one.url} does not tell its health: {one.error}", fix)]
    found = [wrong("services", f"{name} warns: {text}", "do what the warning says") for text in one.warnings]
    if not one.ready:
        found.append(wrong("services", f"{name} is not ready", "its log says what it waits for"))
    return found or [fine("services", f"{name} is ready")]


NO_STORE = unknown("store", "no address is known", "name it with --store-url")
NO_ENGINE = unknown("engine", "no address is known", "name it with --engine-url")
