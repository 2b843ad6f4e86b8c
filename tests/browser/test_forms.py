"""The forms by which people steer, filled in and sent in a real browser on the help desk's story: a spec, a
removal, an erasure, keys, and a refused message."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
import yaml
from playwright.async_api import Browser, Page
from tunewheel_contracts.events.data import RedeliveryRequested
from tunewheel_contracts.events.upstream import ErasureRequested, ProjectDeclared
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED
from tunewheel_testing.browser import becomes, click, tab_of, until
from tunewheel_testing.console import Console
from tunewheel_testing.crawl import HEADERS
from tunewheel_testing.helpdesk import EXAMPLE, tell
from tunewheel_testing.waiting import PATIENCE_SECONDS
from tunewheel_testing.waiting import until as until_true

pytestmark = [pytest.mark.nightly("browsers")]


@pytest.fixture(scope="module")
def helpdesk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    made = Console(tmp_path_factory.mktemp("helpdesk"))
    asyncio.run(tell(made))
    with made.serving():
        yield made


@pytest.fixture
async def page(browser: Browser) -> Page:
    return await tab_of(browser, extra_http_headers=HEADERS, viewport={"width": 400, "height": 900})


async def published(console: Console, kind: type[Any]) -> list[Any]:
    """Return what the console has published of ``kind``, once there is something."""
    return await until_true(lambda: [e.data for e in console.log.events if isinstance(e.data, kind)])


async def test_a_spec_shows_its_changes_and_is_put_in_force_as_it_was_checked(
    helpdesk: Console, page: Page, tmp_path: Path
):
    file, spec = tmp_path / "project.yaml", yaml.safe_load((EXAMPLE / "project.yaml").read_text("utf-8"))
    file.write_text(yaml.safe_dump(spec | {"train": spec["train"] | {"rank": "many"}}))
    await page.goto(f"{helpdesk.url}/projects/helpdesk")
    await click(page, "Change the spec")
    await page.set_input_files("#declare [type=file]", file)
    await click(page, "Show what it changes")
    await until(page, "train.rank")
    assert not await page.locator("#declare [name=confirm]").is_visible()
    changed = spec | {"description": "Larkspur answers.", "train": spec["train"] | {"rank": 24}}
    file.write_text(yaml.safe_dump(changed))
    await page.set_input_files("#declare [type=file]", file)
    await click(page, "Show what it changes")
    await until(page, "16 → 24", "Larkspur answers.")
    await click(page, "Put it in force")
    told = await published(helpdesk, ProjectDeclared)
    assert (told[-1].spec.train.rank, told[-1].spec.description) == (24, "Larkspur answers.")
    await page.wait_for_url("**/projects/helpdesk")


async def test_a_project_is_removed_once_its_name_is_typed(helpdesk: Console, page: Page):
    await page.goto(f"{helpdesk.url}/projects/lockers")
    await click(page, "Remove the project")
    form = page.locator("details[open] form[data-method=DELETE]")
    await form.locator("[data-typed]").fill("locker")
    await form.locator("button").click()
    await until(page, "what is typed to confirm is not the same")
    assert helpdesk.log.taken_back == []
    await form.locator("[data-typed]").fill("lockers")
    await form.locator("button").click()
    await page.wait_for_url("**/projects")
    assert helpdesk.log.taken_back == [
        (PROJECT_DECLARED.name, "lockers"),
        (SERVING_DESIRED.name, "lockers"),
    ]


async def test_a_person_is_erased_once_the_id_is_typed_twice(helpdesk: Console, page: Page):
    await page.goto(f"{helpdesk.url}/projects/helpdesk/erasures")
    await click(page, "Erase a person")
    form = page.locator("details[open] form")
    await form.locator("[name=customer]").fill("c-017")
    await form.locator("[data-repeats]").fill("c-071")
    await form.locator("[name=requested_by]").fill("m.okafor")
    await form.locator("[name=reason]").fill("a letter of 2 March")
    await form.locator("button").click()
    await until(page, "what is typed to confirm is not the same")
    await form.locator("[data-repeats]").fill("c-017")
    await form.locator("button").click()
    told = await published(helpdesk, ErasureRequested)
    assert [(one.customer, one.source_id, one.requested_by) for one in told] == [("c-017", None, "m.okafor")]
    await becomes(
        page, "[...document.querySelectorAll('.row h2')].some(one => one.innerText.startsWith('A person'))"
    )


async def test_a_new_key_is_shown_once_and_works(helpdesk: Console, page: Page):
    await page.goto(f"{helpdesk.url}/keys")
    await click(page, "Make a key")
    form = page.locator("details[open] form")
    await form.locator("[name=name]").fill("desk-app")
    await form.locator("[value=viewer]").check()
    await form.locator("[name='projects[]']").fill("helpdesk")
    await form.locator("button").click()
    await until(page, "copy it now")
    found = re.search(r"it is not shown again: (\S+)", await form.locator("output").inner_text())
    assert found
    key = found[1]
    await becomes(page, "document.querySelector('#key-desk-app') !== null")
    async with (
        httpx.AsyncClient(base_url=helpdesk.url, timeout=PATIENCE_SECONDS) as client,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        headers = {"authorization": f"Bearer {key}"}
        while (await client.get("/v1/projects/helpdesk", headers=headers)).status_code == 401:
            await asyncio.sleep(0.1)  # the file of keys is read again from time to time
        assert (await client.get("/v1/projects/helpdesk", headers=headers)).status_code == 200
        assert (await client.get("/v1/projects/lockers", headers=headers)).status_code == 403
    await page.reload()
    assert key not in await page.content()

    await page.locator("#key-desk-app summary", has_text=re.compile("^Revoke$")).click()
    form = page.locator("#key-desk-app details[open] form")
    await form.locator("[data-typed]").fill("desk-app")
    await form.locator("button").click()
    await becomes(page, "document.querySelector('#key-desk-app') === null")


async def test_a_refused_message_is_read_and_handled_again(helpdesk: Console, page: Page):
    await page.goto(f"{helpdesk.url}/dead-letters")
    await page.locator(".row a", has_text="the message").click()
    await until(page, "answer.priority", '"ticket_id": "LM-0611"')
    await click(page, "Again")
    await click(page, "Send")
    await becomes(page, "document.querySelector('details[open] output').textContent === 'sent'")
    (told,) = await published(helpdesk, RedeliveryRequested)
    assert told.letter_id == unquote(page.url.rpartition("/")[2])
