"""The console in a real browser: Chromium, headless, on a console process that reads a real broker."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest
from playwright.async_api import Page
from tunewheel_contracts import topics
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, Stage
from tunewheel_contracts.events.monitoring import FigureSeries, WindowJudged
from tunewheel_contracts.events.production import DriftCluster, DriftDetected, DriftWindow
from tunewheel_contracts.events.training import TrainProgressed
from tunewheel_contracts.events.turns import LabelsRequested, TurnDecided
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.label_prompts import LabelPrompt, LabelPrompts
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SMOLLM2
from tunewheel_testing.browser import Seen, becomes, click, until
from tunewheel_testing.specs import declared

from ..integration.bus import PATIENCE_SECONDS, Bus
from ..integration.verdicts import adapter_of, passed
from .console_process import Console

pytestmark = [pytest.mark.integration, pytest.mark.nightly("browsers")]

MARKUP = '<img src="/nowhere" onerror="alert(1)"> customer wrote'


async def publish_turn(bus: Bus, project: str) -> None:
    progress = TrainProgressed(
        project=project, run_id="run-1", step=3, total_steps=9, epoch=0.1, loss=1.25, learning_rate=1e-3,
        tokens_per_second=100.0, eta_seconds=5.0,
    )  # fmt: skip
    verdict = passed(project, 1)
    review = ReviewRequested.model_validate(verdict.data.model_dump())
    model_id = verdict.data.adapter.model_id
    promotion = ModelPromoted(
        project=project, model_id=model_id, from_stage=Stage.EVALUATED, to_stage=Stage.PRODUCTION,
        cause=verdict.id, reason="held up",
    )  # fmt: skip
    registered = ModelRegistered(
        project=project, model_id=model_id, kind="adapter", base=SMOLLM2, adapter=verdict.data.adapter,
        run_id=verdict.data.run_id, dataset_id=verdict.data.dataset_id,
    )  # fmt: skip
    decided = TurnDecided(project=project, step="waits for labels", next_step="Answer the questions.")
    await bus.publish(
        declared(project),
        *(
            new_event(data, source="/test")
            for data in (progress, review, registered, promotion, drift(project), decided)
        ),
    )


def drift(project: str) -> DriftDetected:
    """Return a drift that is about what customers wrote: markup."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    window = DriftWindow(
        first_completion_id="c1", last_completion_id="c9", completions=9, started_at=at, ended_at=at
    )
    return DriftDetected(
        project=project, detector="input", statistic_name="ks", statistic=0.4, p_value=0.001, threshold=0.01,
        dataset_id="ds-1", model_id="m-1", window=window,
        cluster=DriftCluster(prompts=3, share=0.5, keywords=(MARKUP,)),
    )  # fmt: skip


async def test_the_page_of_detectors_draws_a_curve_for_each_with_no_other_host(
    console: Console, tab: Page, bus: Bus, project: str
):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    effects = (0.0, 0.02)
    judged = WindowJudged(
        project=project, figure_id=f"{project}/novelty", detector="novelty", family="input", model_id="m-1",
        dataset_id="ds-1", state="near", windows=2, judged_at=at, items=100, statistic_name="share of new",
        statistic=0.07, usual=0.05, effect=0.02, effect_unit="rise", floor=0.015, p_value=0.002,
        threshold=0.0003, reference=MARKUP,
        series=FigureSeries(
            ended_at=(at, at), items=(100, 100), statistic=effects, effect=effects, p_value=effects
        ),
    )  # fmt: skip
    seen = Seen(tab)
    await bus.publish(declared(project), new_event(judged, source="/test"))
    await tab.goto(await console.link(console.let_in(project, "viewer")))
    await until(tab, "Projects", project)
    await tab.goto(f"{console.url}/projects/{project}/detectors")
    assert MARKUP in await until(tab, "novelty", "near", "share of new", "0.07", "0.05")
    await becomes(tab, "document.querySelectorAll('canvas').length === 1")
    assert seen.elsewhere(console.url) == []


async def test_the_page_shows_a_project_with_no_other_host(
    console: Console, tab: Page, bus: Bus, project: str
):
    await publish_turn(bus, project)
    seen = Seen(tab)
    await tab.goto(await console.link(console.let_in(project, "viewer")))
    await until(tab, "Projects", project)
    await tab.goto(f"{console.url}/projects/{project}")
    shown = await until(tab, "wait for a person", "run-1", "customer wrote", "Answer the questions.")
    assert "Approve" not in shown
    assert MARKUP in shown, "as text"
    assert await tab.evaluate("document.querySelector('img[src=\"/nowhere\"]')") is None
    assert len(seen.requested) > 4
    assert seen.elsewhere(console.url) == []


async def test_a_person_logs_in_reviews_and_logs_out(console: Console, tab: Page, bus: Bus, project: str):
    await publish_turn(bus, project)
    key = console.let_in(project, "reviewer")
    await console.link(key)  # the console knows the key
    await tab.goto(console.url)
    await until(tab, "API key or token")
    await tab.fill("#key", "no such key")
    await click(tab, "Log in")
    await until(tab, "Not logged in")
    await tab.fill("#key", key)
    await click(tab, "Log in")
    await until(tab, "1 for reviews")
    (cookie,) = await tab.context.cookies()
    assert cookie["httpOnly"]
    assert (cookie["sameSite"], cookie["path"], cookie["expires"] == -1) == ("Strict", "/", False)
    assert await tab.evaluate("document.cookie") == ""

    await tab.goto(f"{console.url}/projects/{project}")
    await click(tab, "Approve")
    await click(tab, "Send")
    (review,) = await bus.collect(topics.REVIEW_SUBMITTED, 1, where=lambda e: e.project == project)
    assert (review.data.verdict, review.data.reviewer) == ("approved", project)
    assert review.data.principal == Principal(name=project)

    await click(tab, "Log out")
    await until(tab, "API key or token")
    assert await tab.context.cookies() == []
    async with httpx.AsyncClient(
        base_url=console.url, cookies={cookie["name"]: cookie["value"]}, timeout=PATIENCE_SECONDS
    ) as copied:
        assert (await copied.get("/")).status_code == 401, "it ended here too"


async def test_a_link_works_once_an_operator_commands_and_a_key_that_is_taken_away_empties_an_open_tab(
    console: Console, tab: Page, bus: Bus, project: str
):
    await publish_turn(bus, project)
    link = await console.link(console.let_in(project, "operator"))
    await tab.goto(link)
    await until(tab, project)
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as other:
        answer = await other.get(link)
    assert (answer.status_code, "used or is too old" in answer.text) == (401, True)

    model_id = adapter_of(project, 1).model_id
    await tab.goto(f"{console.url}/projects/{project}/models/{model_id}")
    await click(tab, "Roll back")
    await tab.fill("details[open] textarea", "promises refunds")
    await click(tab, "Send")
    (ordered,) = await bus.collect(topics.MODEL_COMMANDED, 1, where=lambda e: e.project == project)
    assert (ordered.data.action, ordered.data.model_id) == ("rollback", model_id)
    assert (ordered.data.reason, ordered.data.principal) == ("promises refunds", Principal(name=project))

    console.shut_out(project)
    assert project not in await until(tab, "API key or token")


async def test_only_the_pages_of_the_console_give_commands(console: Console, project: str):
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as browser:
        answer = await browser.get(await console.link(console.let_in(project, "operator")))
    session = {"cookie": "; ".join(f"{name}={value}" for name, value in answer.cookies.items())}
    place = f"{console.url}/v1/projects/{project}/runs/r/cancel"
    async with httpx.AsyncClient(headers=session, timeout=PATIENCE_SECONDS) as client:
        foreign = await client.post(place, headers={"origin": "https://evil.example"})
        assert foreign.status_code == 403
        ours = await client.post(place, headers={"origin": console.url})
        assert (ours.status_code, ours.json()["error"]["code"]) == (403, "csrf")


async def test_three_prompts_that_drifted_are_answered_on_the_page(
    console: Console, tab: Page, bus: Bus, project: str
):
    items = tuple(
        LabelPrompt(
            completion_id=f"{project}-{n}",
            messages=(ChatMessage(role="user", content=f"question {n} {MARKUP}"),),
            output="the model's own",
        )
        for n in range(3)
    )
    prompts = LabelPrompts(project=project, request_id=f"alarm-{project}", items=items)
    path = f"{project}.json"
    await ObjectStore(console.store_url).put(path, prompts.model_dump_json().encode())
    asked = LabelsRequested(
        project=project, request_id=prompts.request_id, alarm_id="alarm-1", dataset_id="ds-1",
        wanted=3, prompts=path, completion_ids=tuple(item.completion_id for item in items),
    )  # fmt: skip
    await bus.publish(declared(project), new_event(asked, source="/test"))
    await tab.goto(await console.link(console.let_in(project, "reviewer")))
    await until(tab, "1 for labels")
    await tab.goto(f"{console.url}/projects/{project}/labels/{prompts.request_id}")
    for number, category in enumerate(("bell", "horn", "bell")):
        assert MARKUP in await until(tab, f"{number} of 3 answered", f"question {number}"), "as text"
        radio = f"document.querySelector('[type=radio][value=\\'\"{category}\"\\']')"
        await becomes(tab, f"(b => b ? (b.click(), b.checked) : false)({radio})")
        await click(tab, "Publish")
    await until(tab, "3 of 3 answered", "No prompt is left")
    told = await bus.collect(topics.EXAMPLE_PUBLISHED, 3, where=lambda event: event.project == project)
    assert sorted((e.data.example_id, e.data.output["category"], e.data.validated_by) for e in told) == [
        (f"{project}-{n}", category, project) for n, category in enumerate(("bell", "horn", "bell"))
    ]
