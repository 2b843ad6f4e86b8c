"""A person answers a request for labels by keys in a real browser; the session ends, and others answer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from playwright.async_api import Page
from tunewheel_contracts import topics
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.turns import LabelCluster, LabelsRequested
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.label_prompts import LabelPrompt, LabelPrompts
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.browser import becomes, until, value
from tunewheel_testing.specs import declared

from ..integration.bus import PATIENCE_SECONDS, Bus
from .console_process import Console

pytestmark = [pytest.mark.integration, pytest.mark.nightly("browsers")]

SCHEMA = {
    "type": "object",
    "properties": {"category": {"enum": ["bell", "horn"]}, "reply": {"type": "string"}},
    "required": ["category"],
}
TASK = {"system_prompt": "Answer as JSON.", "output_schema": SCHEMA, "label_field": "category"}
SHOWN = "document.readyState === 'complete' && document.querySelector('form.answer')?.dataset.number === '{}'"
REPLY = "document.querySelector('[data-name=reply]').value"


async def asked(console: Console, bus: Bus, project: str, *, prompts: int) -> str:
    """Ask for answers to questions, the last three of one topic; return the path of the request."""
    items = tuple(
        LabelPrompt(
            completion_id=f"{project}-{n}",
            messages=(ChatMessage(role="user", content=f"question {n} of {project}"),),
            output='{"category": "bell", "reply": "ring"}',
        )
        for n in range(1, prompts + 1)
    )
    kept = LabelPrompts(project=project, request_id=f"labels-{project}", items=items)
    await ObjectStore(console.store_url).put(f"{project}.json", kept.model_dump_json().encode())
    names = tuple(item.completion_id for item in items)
    request = LabelsRequested(
        project=project, request_id=kept.request_id, alarm_id="alarm-1", dataset_id="ds-1", wanted=prompts,
        prompts=f"{project}.json", completion_ids=names,
        clusters=(LabelCluster(cluster_id="c-1", completion_ids=names[-3:], size=9),),
    )  # fmt: skip
    await bus.publish(declared(project, task=TASK), new_event(request, source="/test"))
    return f"projects/{project}/labels/{kept.request_id}"


async def published(bus: Bus, project: str, count: int) -> dict[str, Any]:
    """Return the answers by the number of the question, the latest last."""
    found = await bus.collect(topics.EXAMPLE_PUBLISHED, count, where=lambda event: event.project == project)
    return {e.data.example_id.rpartition("-")[2]: (e.data.output, e.data.validated_by) for e in found}


async def test_keys_answer_correct_skip_go_back_and_answer_a_topic_at_once(
    console: Console, tab: Page, bus: Bus, project: str
):
    path = await asked(console, bus, project, prompts=6)
    await tab.goto(await console.link(console.let_in(project, "reviewer")))
    await until(tab, "1 for labels")
    await tab.goto(f"{console.url}/{path}")
    await becomes(tab, SHOWN.format(1))
    await tab.keyboard.press("a")
    await becomes(tab, SHOWN.format(2))
    await until(tab, "1 of 6 answered", "about")
    for key, number in (("s", 3), ("ArrowLeft", 2), ("c", 2)):
        await tab.keyboard.press(key)
        await becomes(tab, SHOWN.format(number))
        await becomes(tab, f"{REPLY} === '{'ring' if key == 'c' else ''}'")
    await tab.keyboard.press("e")
    await tab.keyboard.insert_text(" twice")
    for key in ("Escape", "2", "p"):  # p belongs to what is folded
        await tab.keyboard.press(key)
    await value(tab, "document.querySelector('[name=publish]:not([hidden])').click()")
    await becomes(tab, SHOWN.format(3))
    await tab.keyboard.press("s")
    await becomes(tab, SHOWN.format(4))
    await tab.keyboard.press("b")
    await until(tab, "question 5", "question 6")
    await value(tab, "document.querySelector('[name=also][value=\"5\"]').click()")
    await tab.keyboard.press("O")
    await becomes(tab, SHOWN.format(5))
    await tab.keyboard.press("o")
    await becomes(tab, SHOWN.format(3))
    await tab.keyboard.press("1")
    await value(tab, "document.querySelector('[name=publish]:not([hidden])').click()")
    await until(tab, "3 of 6 answered", "No prompt is left")
    told = await published(bus, project, 6)
    assert told == {
        "1": ({"category": "bell", "reply": "ring"}, project),
        "2": ({"category": "horn", "reply": told["2"][0]["reply"]}, project),
        "3": ({"category": "bell"}, project),
        **dict.fromkeys("456", ("", project)),
    }
    assert "ring" in told["2"][0]["reply"]
    assert " twice" in told["2"][0]["reply"]


async def test_a_session_that_ends_and_an_answer_of_somebody_else_lose_no_typed_text(
    console: Console, tab: Page, bus: Bus, project: str
):
    path = await asked(console, bus, project, prompts=3)
    await tab.goto(await console.link(console.let_in(project, "reviewer")))
    await until(tab, "1 for labels")
    await tab.goto(f"{console.url}/{path}?item=2")
    await becomes(tab, SHOWN.format(2))
    await tab.keyboard.press("2")
    await tab.fill("[data-name=reply]", "typed before the session ended")
    console.shut_out(project)
    await until(tab, "API key or token")
    await tab.goto(await console.link(console.let_in(project, "reviewer")))
    await becomes(tab, SHOWN.format(2))  # back where they were
    await becomes(tab, f"{REPLY} === 'typed before the session ended'")
    assert await value(tab, "document.querySelector(':checked').value") == '"horn"'

    key = console.let_in(project, "reviewer", name="bob")
    await console.link(key)
    place = f"{console.url}/v1/{path}/items/2/answer"
    async with httpx.AsyncClient(headers={"authorization": f"Bearer {key}"}, timeout=PATIENCE_SECONDS) as bob:
        answer = {"output": {"category": "bell"}}
        assert (await bob.put(place, json=answer)).status_code == 200
    await until(tab, "bob answered this question", "1 of 3 answered")
    publish = "document.querySelector('[name=publish]:not([hidden])').click()"
    await value(tab, publish)
    await until(tab, "not saved", "answered by bob")
    assert await value(tab, REPLY) == "typed before the session ended"
    await value(tab, publish)
    await becomes(tab, SHOWN.format(3))
    async with asyncio.timeout(PATIENCE_SECONDS):
        said = await published(bus, project, 2)
    assert said == {"2": ({"category": "horn", "reply": "typed before the session ended"}, project)}
