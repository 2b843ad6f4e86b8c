"""Checks the object store, the engines, the health ports, and the bases that the hub must give."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import SecretStr
from tunewheel_contracts.errors import TransientError
from tunewheel_local.http import open_session

from tunewheel_cli.doctor.findings import Finding, fine, listed, unknown, wrong
from tunewheel_cli.service_health import ServiceHealth, ask_health, offset_of

if TYPE_CHECKING:
    from tunewheel_runtime.store import ObjectStore

FOLDER = "doctor"
"""A folder in the store for an object that the check creates and removes."""
ENGINE_SECONDS = 10.0
ENGINE_CAFILE = "TUNEWHEEL_ENGINE_CAFILE"


class Engine(NamedTuple):
    """An engine's address. ``key`` None: no key is sent."""

    url: str
    key: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The findings of one check, and by name of each clock how far it is ahead of this machine's."""

    findings: tuple[Finding, ...]
    offsets: Mapping[str, timedelta]


async def look_at_store(url: str) -> Look:
    """Create, read, list and remove an object, and check that an existing object is not overwritten. Look at
    the copies of base models."""
    from obstore.exceptions import BaseError
    from tunewheel_runtime.kafka import InvalidSetting
    from tunewheel_runtime.store import ArtifactConflict, ObjectStore, local_root_of

    fix = "check TUNEWHEEL_STORE_URL, the credentials in the environment, and what they allow below this URL"
    path = f"{FOLDER}/{uuid.uuid4().hex}"
    root = local_root_of(url)
    if root is not None and not root.exists():
        return Look((wrong("store", f"{url}: the folder {root} does not exist", f"make it, or {fix}"),), {})
    try:
        store = await asyncio.to_thread(ObjectStore, url)
        try:
            await store.put(path, b"first")
            now = datetime.now(UTC)
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
            mirror = await look_at_mirror(store)
        finally:
            await store.delete([path])
    except (TransientError, InvalidSetting, BaseError, OSError, ValueError) as error:
        return Look((wrong("store", f"{url}: {error}", fix),), {})
    return Look((found, *mirror), {} if written is None else {"the store": written - now})


async def look_at_mirror(store: ObjectStore) -> list[Finding]:
    """Look at the base models that train copied to the store, without their hashes."""
    from tunewheel_runtime.base_mirror import fix_of, look_into_mirror

    try:
        faults, missing = await look_into_mirror(store)
    except TransientError as error:
        return [unknown("base", f"the copies of base models in {store.url}: {error}")]
    found = [wrong("base", f"{path}: {fault}", fix_of(path)) for path, fault in faults.items() if fault]
    fix = "the next run on this base completes the copy; without such a run, delete the folder"
    for path in missing:
        text = f"{path.removesuffix('.json')} has files and no note: a copy is made now, or was interrupted"
        found.append(unknown("base", text, fix))
    if faults and not found:
        found.append(fine("base", "the copies in the store have the files and sizes that their notes say"))
    return found


async def look_at_engines(engines: Sequence[Engine], authority: str = ENGINE_CAFILE) -> Look:
    """Ask each engine for its models, like the gateway. ``authority``: the variable that names the file of
    trusted certificates."""
    import aiohttp

    findings: list[Finding] = []
    offsets: dict[str, timedelta] = {}
    for engine in engines:
        timeout = aiohttp.ClientTimeout(total=ENGINE_SECONDS)
        headers = {"Authorization": f"Bearer {engine.key.get_secret_value()}"} if engine.key else {}
        try:
            async with open_session(timeout=timeout, headers=headers, authority=authority) as session:
                finding, offset = await _ask_engine(session, engine.url)
        except aiohttp.ClientConnectorCertificateError as error:
            text = f"{engine.url} shows a certificate that is not trusted ({error.certificate_error})"
            finding, offset = wrong("engine", text, f"name its authority in {authority}"), None
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            text = f"{engine.url} does not answer as an engine does: {str(error) or type(error).__name__}"
            finding, offset = wrong("engine", text, "start it, or mend TUNEWHEEL_ENGINE_URL"), None
        findings.append(finding)
        if offset is not None:
            offsets[f"the engine at {engine.url}"] = offset
    return Look(tuple(findings), offsets)


async def _ask_engine(session: Any, url: str) -> tuple[Finding, timedelta | None]:
    for path in ("/v1/models", "/info"):  # vLLM and the local engine, TGI
        async with session.get(f"{url}{path}", allow_redirects=False) as answer:
            offset = offset_of(answer.headers)
            if answer.status in (401, 403):
                fix = "set TUNEWHEEL_ENGINE_API_KEY to a key that the engine knows"
                return wrong("engine", f"{url} answers {answer.status} to this key", fix), offset
            if answer.status == 404:
                continue
            if answer.status != 200:
                return wrong(
                    "engine", f"{url}{path} answers {answer.status}", "read the engine's log"
                ), offset
            return fine("engine", f"{url} serves {listed(_models(await answer.json()))}"), offset
    return wrong("engine", f"{url} has neither /v1/models nor /info", "mend TUNEWHEEL_ENGINE_URL"), None


def _models(answer: Any) -> list[str]:
    """Return the models in an engine's answer. Raises ``ValueError`` if it is no such answer."""
    try:
        models = [answer["model_id"]] if "model_id" in answer else [model["id"] for model in answer["data"]]
    except (KeyError, TypeError) as error:
        raise ValueError("its answer does not name its models") from error
    if not models:
        raise ValueError("it serves no model")
    return [str(model) for model in models]


async def look_at_bases(names: Sequence[str]) -> Look:
    """Ask the hub for the base models ``names``, with the token of this environment."""
    return Look(tuple(await asyncio.to_thread(lambda: [*_ask_hub(names)])), {})


def _ask_hub(names: Sequence[str]) -> Iterator[Finding]:
    from tunewheel_basemodel.carried import CARRIED
    from tunewheel_basemodel.errors import BaseModelNotFound, BaseModelUnreachable
    from tunewheel_basemodel.hub import ask_hub, token_source

    for name in names:
        if name in CARRIED or Path(name).is_absolute() or Path(name).is_dir():
            continue
        try:
            source = ask_hub(name)
        except BaseModelUnreachable as error:  # then it gives no other either
            text, _, fix = error.reason.partition("; ")
            yield unknown("base", text, fix)
            return
        except BaseModelNotFound as error:
            text, _, fix = error.reason.partition("; ")
            # the hub refuses this environment; services may have a token that is not here
            judge = unknown if error.__cause__ is not None and not token_source() else wrong
            yield judge("base", text, fix)
        else:
            gated = f", which is gated, to the token of {source}" if source else ""
            yield fine("base", f"the Hugging Face hub gives {name}{gated}")


async def look_at_processes(urls: Sequence[str]) -> Look:
    """Check processes at their health ports."""
    answers = await ask_health(urls)
    offsets = {_name(one): one.offset for one in answers if one.offset is not None}
    return Look(tuple(finding for one in answers for finding in _health(one)), offsets)


def _name(one: ServiceHealth) -> str:
    """An engine says no service's name at its port of health."""
    return f"{one.service or 'an engine'} at {one.url}"


def _health(one: ServiceHealth) -> list[Finding]:
    name = _name(one)
    if one.error:
        fix = "start the process, or mend --health-urls"
        return [wrong("services", f"{one.url} does not tell its health: {one.error}", fix)]
    found = [wrong("services", f"{name} warns: {text}", "do what the warning says") for text in one.warnings]
    if not one.ready:
        found.append(wrong("services", f"{name} is not ready", "its log says what it waits for"))
    return found or [fine("services", f"{name} is ready")]


NO_STORE = unknown("store", "no address is known", "name it with --store-url")
NO_ENGINE = unknown("engine", "no address is known", "name it with --engine-url")
