"""Every page in a real browser on the log of a real turn: a tiny model learns, people review it, it serves,
production drifts, experts answer, and a second version is built. The console is a process of that wheel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import httpx
import openai
import pytest
from playwright.async_api import Browser
from tunewheel_console.pages.addresses import ADDRESSES
from tunewheel_contracts import topics
from tunewheel_contracts.events.data import BuildReason, RecordKind
from tunewheel_testing.browser import Seen, tab_of
from tunewheel_testing.crawl import one_of_each, some_pages
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.tiny import write_tiny_model

from ..e2e import small_desk
from ..e2e.small_desk import PATIENCE_SECONDS, PROJECT
from ..integration.bus import Bus
from ..integration.wheels import key_of, turning
from .wholeness import faults_of

pytestmark = [pytest.mark.e2e, pytest.mark.model, pytest.mark.nightly("browsers")]

SERVICES = (
    "engine", "ingest", "curate", "train", "eval", "registry", "gateway", "monitor", "index", "console",
)  # fmt: skip
CORRECTION = {"category": "battery", "priority": "normal", "reply": "Unplug it for ten minutes."}
VIEWS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((400, "light"), (1_400, "dark"))


async def test_every_page_is_whole_on_the_log_of_a_real_turn(tmp_path: Path, browser: Browser):
    base = str(write_tiny_model(tmp_path / "base", context=2048))
    spec = small_desk.spec(base)
    spec = spec.model_copy(update={"review": spec.review.model_copy(update={"required": True, "sample": 4})})
    regression = small_desk.cut_regression_set(tmp_path / "published")
    environment = {"TUNEWHEEL_EVAL_REGRESSION_SET": str(regression)}
    async with turning(tmp_path, SERVICES, environment=environment, base_model=base) as (wheel, feed):
        await small_desk.publish(wheel, tmp_path / "published", spec)
        async with Bus(wheel.bootstrap_servers) as bus:  # it becomes a dead letter
            bad = json.dumps({"project": PROJECT, "ticket_id": "LM-bad", "body": 7}).encode()
            await bus.send(topics.TICKET_PUBLISHED.name, PROJECT.encode(), bad, {})
        await feed.first(topics.REVIEW_REQUESTED, patience=PATIENCE_SECONDS)
        console = Endpoint.of("console", wheel.plan.var)
        pages = one_of_each(await some_pages(console.url, console.headers))
        async with httpx.AsyncClient(base_url=console.url, headers=console.headers, timeout=60) as client:
            await approve(client)
            await try_a_recipe(client)
        model_id = (await small_desk.promoted(feed)).data.model_id
        url = f"{wheel.url_of('gateway')}/v1"
        async with openai.AsyncOpenAI(
            base_url=url, api_key=key_of(wheel), timeout=120, max_retries=0
        ) as asked:
            answers = await small_desk.ask(asked, model_id, "The battery of my bike does not fill.")
            await small_desk.correct(wheel, answers.plain.id, CORRECTION)
            await feed.first(topics.RECORD_INGESTED, lambda e: e.data.kind is RecordKind.FEEDBACK)
            questions = await small_desk.ask_until_alarmed(asked, feed)
        await small_desk.answer(wheel, (await feed.first(topics.LABELS_REQUESTED)).data, questions)
        request = await feed.first(topics.DATASET_REQUESTED, lambda e: e.data.reason is BuildReason.DRIFT)
        await feed.first(
            topics.DATASET_VERSIONED, lambda e: e.causation_id == request.id, patience=PATIENCE_SECONDS
        )
        ended = await feed.first(
            topics.SWEEP_PROGRESSED, lambda e: e.data.state != "training", patience=PATIENCE_SECONDS
        )
        assert (ended.data.state, ended.data.measured, ended.data.reason) == ("completed", 1, "")
        pages = one_of_each(await some_pages(console.url, console.headers)) | {
            shape: path for shape, path in pages.items() if "reviews" in shape
        }
        faults = [f"no link leads to {one.path}" for one in ADDRESSES if one.path not in pages]
        for path in pages.values():
            faults += await faults_at(path, browser, console)
        assert not faults, "\n".join(faults)


async def try_a_recipe(client: httpx.AsyncClient) -> None:
    """Ask for a sweep of one recipe on the only version."""
    order = {"dataset_id": "latest", "recipes": [{"rank": 4, "validation_fraction": 0.4}]}
    (await client.post(f"/v1/projects/{PROJECT}/sweeps", json=order)).raise_for_status()


async def faults_at(path: str, browser: Browser, console: Endpoint) -> list[str]:
    found = list[str]()
    for width, theme in VIEWS:
        page = await tab_of(
            browser,
            viewport={"width": width, "height": 900},
            color_scheme=theme,
            extra_http_headers=console.headers,
        )
        told = await faults_of(page, Seen(page), console.url + path)
        found += [f"{width} {path}: {fault}" for fault in told]
        await page.close()
    return found


async def approve(client: httpx.AsyncClient) -> None:
    """Say of all pairs of the review that waits that they are alike, and approve."""
    place = f"/v1/projects/{PROJECT}/reviews"
    (waiting,) = (await client.get(place)).raise_for_status().json()["reviews"]
    place += f"/{waiting['review_id']}"
    for number in range(1, (await client.get(place)).json()["items"] + 1):
        answer = await client.put(f"{place}/items/{number}/answer", json={"choice": "same"})
        answer.raise_for_status()
    (await client.post(f"{place}/submit", json={"verdict": "approved"})).raise_for_status()
