"""A request's page: three prompts answered by its form, and what goes wrong on the way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
from nicegui import app, ui
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation
from tunewheel_console.label_page import LabelPage
from tunewheel_console.queue_list import LABEL_TITLES, label_lines, queue_list
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Caller, Grant, NotAuthenticated, Role
from tunewheel_runtime.store import ObjectStore

PATIENT = 600
ANN = Caller(Principal(name="ann"), (Grant(frozenset({Role.REVIEWER}), frozenset({"desk"})),))
SCHEMA = {
    "type": "object",
    "properties": {"category": {"enum": ["battery", "solar"]}, "days": {"type": "integer"}},
    "required": ["category"],
}


class Tab:
    """What somebody has open, whose session can end."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self.ended = False

    async def who(self) -> Caller:
        if self.ended:
            raise NotAuthenticated("this session has ended")
        return ANN

    def build(self) -> None:
        if ui.context.client.request.url.path.endswith("/list"):
            read = partial(label_lines, self._console.state, self._console.labelling)
            queue_list(read, LABEL_TITLES, ANN, self.who, refresh_seconds=0.05).build(csrf=None, root="../")
            return
        page = LabelPage(
            self._console.labelling, ANN, self.who, project="desk", request_id="alarm-1", name=None,
            refresh_seconds=0.05,
        )  # fmt: skip
        page.build(csrf="token", root="../../../")


@pytest.fixture
async def tab(console: Any, desk: Any, store: ObjectStore) -> Tab:
    for event in (desk.declared(output_schema=SCHEMA), await desk.stored_labels(store, prompts=3)):
        console.state.apply(event)
    return Tab(console)


@pytest.fixture
async def user(tab: Tab) -> AsyncIterator[User]:
    async with user_simulation(root=tab.build) as simulated:
        yield simulated
    # NiceGUI has one app per process, and one that has started takes no other test's console.
    app.middleware_stack = None


def choose(user: User, number: int) -> None:
    """Choose a label, as the browser would say it."""
    (radio,) = user.find(marker="field-category").elements
    assert isinstance(radio, ui.radio)
    radio.set_value(number)


async def test_three_prompts_are_answered_by_the_form(user: User, tab: Tab, log: Any) -> None:
    await user.open("/")
    await user.should_see("solar, roof: 0 answered of 2 wanted, 3 open", retries=PATIENT)
    await user.should_see("My roof panel 0 hums.")
    user.find(marker="publish").click()
    await user.should_see("not saved: output.category: is missing; give it", retries=PATIENT)
    choose(user, 1)
    user.find(marker="field-days").type("soon")
    user.find(marker="publish").click()
    await user.should_see("not saved: output.days: is not a number", retries=PATIENT)
    user.find(marker="field-days").clear().type("3")
    log.away = True
    user.find(marker="publish").click()
    await user.should_see("not saved: the broker is away", retries=PATIENT)
    log.away = False
    user.find(marker="publish").click()
    await user.should_see("My roof panel 1 hums.", retries=PATIENT)
    user.find("Skip").click()
    await user.should_see("My roof panel 2 hums.", retries=PATIENT)
    user.find("Out of scope").click()
    await user.should_see("My roof panel 1 hums.", retries=PATIENT)
    choose(user, 0)
    user.find(marker="publish").click()
    await user.should_see("All prompts are done", retries=PATIENT)
    published = [event.data for event in log.events if event.data.type == "example.published"]
    said = {one.example_id: one for one in published}
    assert {name: one.output for name, one in said.items()} == {
        "cmpl-0": {"category": "solar", "days": 3}, "cmpl-1": {"category": "battery"},
        "cmpl-2": "",
    }  # fmt: skip
    assert {one.validated_by for one in said.values()} == {"ann"}


async def test_whose_session_ends_sees_no_prompt_any_more(user: User, tab: Tab) -> None:
    await user.open("/")
    await user.should_see("My roof panel 0 hums.", retries=PATIENT)
    tab.ended = True
    await user.should_see("this session has ended. The answers that you gave are kept.", retries=PATIENT)
    await user.should_not_see("My roof panel 0 hums.")


async def test_the_list_tells_how_far_each_request_is(user: User, tab: Tab, console: Any, desk: Any) -> None:
    queue = await console.labelling.open("desk", "alarm-1")
    await console.labelling.answer(queue, 1, '{"category": "solar"}', person="bob", caller=ANN)
    await user.open("/list")
    await user.should_see("desk: solar, roof", retries=PATIENT)
    await user.should_see("1 answered of 2 wanted")
    console.state.apply(desk.resolved())
    await user.should_see("1 answered of 2 wanted; covered", retries=PATIENT)
