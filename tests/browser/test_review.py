"""Three people compare answers in a real browser, by keyboard alone; nothing tells them whose they are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from playwright.async_api import Page
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewRequested
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.review import ReviewItem, ReviewSet
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.browser import Seen, until, value
from tunewheel_testing.specs import declared

from ..integration.bus import PATIENCE_SECONDS, Bus
from ..integration.verdicts import passed
from .console_process import Console

pytestmark = [pytest.mark.integration, pytest.mark.nightly("browsers")]

ITEMS = 24
MIDDLE = ITEMS // 2
PEOPLE = ("ann", "bob", "cyd")
MARKUP = '<img src="/nowhere" onerror="alert(1)"> the model wrote'
LONG = "long " * 20_000
WANTED = ("better", "same", "worse")
STATIC = "/static/"
"""In the address of what is the same on every page."""


def item(n: int) -> ReviewItem:
    more = {0: MARKUP, 1: LONG}.get(n, "")
    return ReviewItem(
        item_id=f"item-{n:03}",
        example_id=f"e-{n}",
        messages=(
            ChatMessage(role="system", content="Answer the customer."),
            ChatMessage(role="user", content=f"question {n}"),
        ),
        expected=f"expert {n}",
        candidate=f"alpha {n} {more}".strip(),
        other=f"omega {n}",
        stratum="worst",
    )


class Stage:
    """A review that was asked for, and how the people in it look at its items."""

    def __init__(self, console: Console, bus: Bus, project: str) -> None:
        self.console, self.bus, self.project = console, bus, project
        self.review_id = f"rev-{project}"
        self.items = tuple(map(item, range(ITEMS)))
        self.verdict = passed(project, 7)
        adapter = self.verdict.data.adapter
        self.secrets = (
            adapter.model_id, adapter.path, "champion-id-of-old", self.verdict.data.run_id, "item-0",
            "candidate", "champion", "contestant", "adapter",
        )  # fmt: skip
        """What nobody may be told before they are done."""

    async def ask(self) -> None:
        found = ReviewSet(
            review_id=self.review_id,
            project=self.project,
            run_id=self.verdict.data.run_id,
            evaluation_id=None,
            candidate_id=self.verdict.data.adapter.model_id,
            other_id="champion-id-of-old",
            items=self.items,
            reviewers=len(PEOPLE),
            per_item=len(PEOPLE),
        )
        store = ObjectStore(self.console.store_url)
        path = f"reviews/{self.review_id}.json"
        ref: ArtifactRef = await store.put(path, found.model_dump_json().encode())
        request = ReviewRequested.model_validate(
            self.verdict.data.model_dump()
            | {"review_id": self.review_id, "review_set": ref, "items": ITEMS, "reviewers": len(PEOPLE)}
        )
        await self.bus.publish(declared(self.project), new_event(request, source="/test"))

    @property
    def address(self) -> str:
        return f"{self.console.url}/projects/{self.project}/reviews/{self.review_id}"

    def wanted(self, number: int, person: str) -> str:
        """Return what ``person`` thinks of the candidate's answer to the item of this name."""
        return WANTED[(number + PEOPLE.index(person)) % len(WANTED)]


async def shown(tab: Page) -> dict[str, Any]:
    """Return the number and the texts of the page's item; number 0 is the page after the last."""
    script = """(() => {
      const main = document.querySelector('[data-number]');
      const text = name => main?.querySelector(`[aria-label="${name}"]`)?.textContent ?? '';
      const ready = main && document.readyState === 'complete';  // its keys are answered
      return JSON.stringify({number: ready ? Number(main.dataset.number) : -1, left: text('Left answer'),
                             right: text('Right answer')});
    })()"""
    return json.loads(await value(tab, script) or '{"number": -1}')


async def item_after(tab: Page, before: int) -> dict[str, Any]:
    """Wait for another item than ``before``."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (now := await shown(tab))["number"] in (before, -1):
            await asyncio.sleep(0.01)
    return now


async def answer_all(tab: Page, stage: Stage, person: str, *, until: int | None = None) -> dict[str, Any]:
    """Press a key for each item, from the one shown on, up to the end or to the number ``until``."""
    now = await item_after(tab, -1)
    while now["number"] not in (0, until):
        await tab.keyboard.press(key_for(stage, person, now))
        now = await item_after(tab, now["number"])
    return now


def key_for(stage: Stage, person: str, now: dict[str, Any]) -> str:
    name = int(now["left"].split()[1])
    wanted = stage.wanted(name, person)
    if wanted == "same":
        return "2"
    return "1" if (wanted == "better") == now["left"].startswith("alpha") else "3"


async def submit(tab: Page, seen: Seen, stage: Stage, verdict: str) -> None:
    """Submit from the page after the last item, after a look at all that came to the browser so far."""
    said = {url: body for url, body in (await seen.bodies()).items() if STATIC not in url}
    assert any(url.startswith(stage.address) for url in said)
    for secret in stage.secrets:
        assert [url for url, body in said.items() if secret in body] == [], secret
    await tab.keyboard.press(verdict)
    await tab.keyboard.press("Enter")
    await until(tab, "the candidate was", "you found it better")
    assert await tab.get_by_title(stage.verdict.data.adapter.model_id).count() == 1


async def log_in(tab: Page, stage: Stage, key: str) -> Seen:
    await tab.goto(await stage.console.link(key))
    await until(tab, "1 for reviews")
    seen = Seen(tab)  # not the pages before, which may name models
    await tab.goto(stage.address)
    await until(tab, "Item")
    return seen


async def test_three_people_judge_by_keys_and_a_killed_console_loses_nothing(
    console: Console, tab: Page, bus: Bus, project: str
):
    stage = Stage(console, bus, project)
    await stage.ask()
    keys = {person: console.let_in(project, "reviewer", name=person) for person in PEOPLE}
    for person in PEOPLE:
        seen = await log_in(tab, stage, keys[person])
        if person == "bob":
            now = await answer_all(tab, stage, person, until=MIDDLE)
            await tab.keyboard.press(key_for(stage, person, now))  # it may be kept or not
            console.kill()
            console.start()
            await tab.goto(stage.address)
            assert (await item_after(tab, -1))["number"] in (MIDDLE, MIDDLE + 1)
        await answer_all(tab, stage, person)
        await submit(tab, seen, stage, "r" if person == "cyd" else "a")

    async def kept(topic: Any, count: int) -> list[Envelope[Any]]:
        return await bus.collect(topic, count, where=lambda event: event.project == project)

    answers = await kept(topics.REVIEW_ANSWERED, ITEMS * len(PEOPLE))
    judged = {(event.data.reviewer, event.data.item_id): event.data for event in answers}
    assert len(judged) == ITEMS * len(PEOPLE)
    for (person, item_id), answer in judged.items():
        assert answer.preference == stage.wanted(int(item_id[-3:]), person)
        assert (answer.principal.name, answer.revision) == (person, 1)
    submitted = await kept(topics.REVIEW_SUBMITTED, 3)
    assert [(e.data.reviewer, e.data.verdict, e.data.review_id) for e in submitted] == [
        ("ann", "approved", stage.review_id),
        ("bob", "approved", stage.review_id),
        ("cyd", "rejected", stage.review_id),
    ]


async def test_tags_corrections_and_the_way_back(console: Console, tab: Page, bus: Bus, project: str):
    stage = Stage(console, bus, project)
    await stage.ask()
    key = console.let_in(project, "reviewer")
    await log_in(tab, stage, key)
    first = await item_after(tab, -1)
    assert first["number"] == 1
    for pressed in ("f", "c"):
        await tab.keyboard.press(pressed)
    await tab.keyboard.insert_text("as an expert: 1 < 2")
    for pressed in ("Escape", "e"):
        await tab.keyboard.press(pressed)
    await until(tab, "expert " + first["left"].split()[1])
    await tab.keyboard.press("3")
    await item_after(tab, 1)
    await tab.keyboard.press("ArrowLeft")
    assert (await item_after(tab, 2))["number"] == 1
    pressed = "[...document.querySelectorAll('[aria-pressed=true], :checked')].map(b => b.dataset.key).join()"
    assert await tab.evaluate(pressed) == "3,f"
    assert await tab.evaluate("document.querySelector('textarea').value") == "as an expert: 1 < 2"
    await tab.keyboard.press("t")
    await tab.keyboard.press("Enter")
    assert (await item_after(tab, 1))["number"] == 2
    answers = await bus.collect(topics.REVIEW_ANSWERED, 2, where=lambda event: event.project == project)
    said: list[ReviewAnswered] = [event.data for event in answers]
    assert [(one.revision, one.reasons) for one in said] == [
        (1, ("wrong-facts",)),
        (2, ("wrong-facts", "tone")),
    ]
    assert {one.corrected for one in said} == {"as an expert: 1 < 2"}
    assert {one.preference for one in said} == {"worse" if first["left"].startswith("alpha") else "better"}


async def test_what_models_wrote_is_text_and_scrolls(console: Console, tab: Page, bus: Bus, project: str):
    stage = Stage(console, bus, project)
    await stage.ask()
    asked = await log_in(tab, stage, console.let_in(project, "reviewer"))
    seen: set[str] = set()
    now = await item_after(tab, -1)
    while len(seen) < 2:
        for side in (now["left"], now["right"]):
            if MARKUP in side:
                seen.add("markup")
            if LONG.strip() in side:
                seen.add("long")
                height = "Math.max(...[...document.querySelectorAll('[role=region]')].map(one => one.{}))"
                assert await tab.evaluate(height.format("scrollHeight")) > 1_000
                assert await tab.evaluate(height.format("clientHeight")) < 600
        await tab.keyboard.press("ArrowRight")
        now = await item_after(tab, now["number"])
    assert await tab.evaluate("document.querySelector('img[src=\"/nowhere\"]')") is None
    assert asked.elsewhere(console.url) == []


async def test_a_key_taken_away_in_the_middle_says_that_answers_are_kept(
    console: Console, tab: Page, bus: Bus, project: str
):
    stage = Stage(console, bus, project)
    await stage.ask()
    key = console.let_in(project, "reviewer")
    await log_in(tab, stage, key)
    await answer_all(tab, stage, "ann", until=4)
    console.shut_out(project)
    async with httpx.AsyncClient(
        headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE_SECONDS
    ) as client:
        while (await client.get(f"{console.url}/v1/me")).status_code != 401:
            await asyncio.sleep(0.1)
    await tab.keyboard.press("1")
    assert "question" not in await until(tab, "API key or token")
    await tab.goto(await stage.console.link(console.let_in(project, "reviewer")))
    await until(tab, "Item")  # after the login the page that was left comes back by itself
    assert (await item_after(tab, -1))["number"] == 4


async def test_no_answer_over_http_tells_a_role_before_its_reviewer_is_done(
    console: Console, bus: Bus, project: str
):
    """The same over the API, where a program could read more than a page shows."""
    stage = Stage(console, bus, project)
    await stage.ask()
    key = console.let_in(project, "reviewer")
    await console.link(key)  # the console knows the key
    place = f"/v1/projects/{project}/reviews"
    said: list[str] = []

    async with httpx.AsyncClient(
        base_url=console.url, headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE_SECONDS
    ) as http:

        async def call(method: str, path: str, status: int, **options: Any) -> Any:
            answer = await http.request(method, path, **options)
            assert answer.status_code == status, answer.text
            said.append(answer.text)
            return answer.json()

        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (await call("GET", place, 200))["reviews"]:
                await asyncio.sleep(0.05)
        place += f"/{stage.review_id}"
        await call("POST", f"{place}/submit", 409, json={"verdict": "approved"})
        for number in range(1, ITEMS + 1):
            found = await call("GET", f"{place}/items/{number}", 200)
            assert {"alpha", "omega"} == {found[side].split()[0] for side in ("left", "right")}
            await call("PUT", f"{place}/items/{number}/answer", 200, json={"choice": "left"})
        await call("GET", f"{place}/items/{ITEMS + 1}", 404)
        await call("PUT", f"{place}/items/1/answer", 422, json={"choice": "candidate's"})
        await call("GET", place, 200)
        for secret in stage.secrets:
            assert [text[:200] for text in said if secret in text and "candidate's" not in text] == [], secret
        done = await call("POST", f"{place}/submit", 201, json={"verdict": "approved"})
        await call("PUT", f"{place}/items/1/answer", 409, json={"choice": "left"})
    assert done["revealed"]["candidate"] == stage.verdict.data.adapter.model_id
    assert (
        done["revealed"]["candidate_is"].count("left")
        == ITEMS / 2
        == done["revealed"]["preferences"]["better"]
    )
