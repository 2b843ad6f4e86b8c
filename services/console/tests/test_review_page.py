"""A review's page, where what the browser sends, the broker and the session go wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from nicegui import app, ui
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation
from tunewheel_console.queue_list import REVIEW_TITLES, queue_list, review_lines
from tunewheel_console.review_page import ReviewPage
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import ANYBODY, Caller, Grant, NotAuthenticated, Role

PATIENT = 600
ANN = Caller(Principal(name="ann"), (Grant(frozenset({Role.REVIEWER}), frozenset({"desk"})),))


class Tab:
    """A page that somebody has open, whose session can end; and what their browser sends."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self.caller = ANN
        self.ended = False
        self.name: str | None = None
        self.review_id = "rev-1"
        self.pages: list[ReviewPage] = []

    async def who(self) -> Caller:
        if self.ended:
            raise NotAuthenticated("this session has ended")
        return self.caller

    def build(self) -> None:
        page = ReviewPage(
            self._console.reviewing, self.caller, self.who, project="desk", review_id=self.review_id,
            name=self.name, refresh_seconds=0.05,
        )  # fmt: skip
        page.build(csrf="token", root="../../../")
        self.pages.append(page)

    async def send(self, user: User, **said: Any) -> None:
        with user:
            await self.pages[-1]._on_key(SimpleNamespace(args=said))  # type: ignore[arg-type]


@pytest.fixture
def tab(console: Any) -> Tab:
    return Tab(console)


@pytest.fixture
async def user(tab: Tab) -> AsyncIterator[User]:
    async with user_simulation(root=tab.build) as simulated:
        yield simulated
    # NiceGUI has one app per process, and one that has started takes no other test's console.
    app.middleware_stack = None


async def test_an_answer_is_on_the_log_before_the_page_goes_on(user: User, tab: Tab, log: Any):
    await user.open("/")
    await user.should_see("Item 1 of 2; 0 answered", retries=PATIENT)
    log.away = True
    await tab.send(user, number=1, key="1", text="")
    await user.should_see("not saved: the broker is away")
    await user.should_see("Item 1 of 2")
    log.away = False
    await tab.send(user, number=1, key="1", text="")
    await user.should_see("Item 2 of 2; 1 answered")
    assert [event.data.revision for event in log.events[1:]] == [1]


async def test_what_is_about_another_item_or_no_key_is_ignored(user: User, tab: Tab, log: Any):
    ignored: list[dict[str, Any]] = [
        {"number": 2, "key": "1", "text": ""},
        {"number": None, "key": "1"},
        {"key": "1"},
        {"number": 1, "key": "9", "text": ""},
        {"number": 1, "key": ["1"], "text": {}},
        {},
    ]
    await user.open("/")
    await user.should_see("Item 1 of 2; 0 answered", retries=PATIENT)
    for said in ignored:
        await tab.send(user, **said)
        await user.should_see("Item 1 of 2; 0 answered")
        assert len(log.events) == 1, said


async def test_tags_without_a_choice_are_not_lost_silently(user: User, tab: Tab):
    await user.open("/")
    await user.should_see("Item 1 of 2", retries=PATIENT)
    await tab.send(user, number=1, key="f", text="")
    await tab.send(user, number=1, key="Enter", text="")
    await user.should_see("choose 1, 2 or 3 first")
    await user.should_see("Item 1 of 2")


async def test_all_by_keys_to_the_end(user: User, tab: Tab, log: Any):
    await user.open("/")
    await user.should_see("Item 1 of 2", retries=PATIENT)
    await tab.send(user, number=1, key="Enter", text="")
    await tab.send(user, number=2, key="2", text="better so")
    await user.should_see("Item 1 of 2; 1 answered")  # it was passed over
    await tab.send(user, number=1, key="3", text="")
    await tab.send(user, number=2, key="Enter", text="better so")
    await user.should_see("found both the same 1 times, and wrote 1 better ones")
    await tab.send(user, number=0, key="Enter", text="")
    await user.should_see("choose a or r first")
    for key in ("a", "r", "Enter"):
        await tab.send(user, number=0, key=key, text="as nobody would say it")
    await user.should_see("You rejected this version")
    await user.should_see("The candidate was desk-1, compared with desk-0")
    submission = log.events[-1].data
    assert (submission.verdict, submission.comment) == ("rejected", "as nobody would say it")
    assert len(log.events) == 4, "nothing was answered anew"


async def test_a_session_that_ends_in_the_middle_loses_nothing_and_says_so(user: User, tab: Tab):
    await user.open("/")
    await user.should_see("Item 1 of 2", retries=PATIENT)
    await tab.send(user, number=1, key="1", text="")
    tab.ended = True
    await tab.send(user, number=2, key="1", text="")
    await user.should_see("Your 1 answers are kept")
    await user.should_not_see("Left answer")
    tab.ended = False
    await user.open("/")
    await user.should_see("Item 2 of 2; 1 answered", retries=PATIENT)


async def test_a_role_that_is_taken_away_takes_the_review_away(user: User, tab: Tab, log: Any):
    await user.open("/")
    await user.should_see("Item 1 of 2", retries=PATIENT)
    tab.caller = Caller(ANN.principal, ())
    await tab.send(user, number=1, key="1", text="")
    await user.should_see("ann may not review desk any more", retries=PATIENT)
    await user.should_not_see("Left answer")
    assert len(log.events) == 1


async def test_a_review_that_ends_meanwhile_is_told(user: User, tab: Tab, console: Any, desk: Any):
    await user.open("/")
    await user.should_see("Item 1 of 2", retries=PATIENT)
    console.state.apply(desk.passed_now())
    await user.should_see("You did not submit. The review has ended: passed.", retries=PATIENT)


async def test_where_identity_is_open_it_asks_for_a_name(user: User, tab: Tab):
    tab.caller = ANYBODY
    await user.open("/")
    await user.should_see("say who you are")
    tab.name = "ann"
    await user.open("/")
    await user.should_see("Item 1 of 2", retries=PATIENT)


async def test_a_review_that_is_not_known_yet_opens_when_it_comes(tab: Tab, console: Any, log: Any):
    known = console.state.projects.pop("desk")
    request, log.events = log.events, []
    async with user_simulation(root=tab.build) as user:
        await user.open("/")
        await user.should_see("desk has no review rev-1", retries=PATIENT)
        log.events = request
        console.state.projects["desk"] = known
        await user.should_see("Item 1 of 2", retries=PATIENT)
    app.middleware_stack = None


async def test_the_list_shows_what_waits(tab: Tab, console: Any, desk: Any):
    def root() -> None:
        read = partial(review_lines, console.state)
        queue_list(read, REVIEW_TITLES, tab.caller, tab.who, refresh_seconds=0.05).build(csrf=None, root="./")

    async with user_simulation(root=root) as user:
        await user.open("/reviews")
        await user.should_see("desk rev-1", retries=PATIENT)
        await user.should_see("you answered 0, of 4 items in all; 0 of 2 people submitted")
        with user:
            links = {link.props["href"] for link in user.find(ui.link).elements}
        assert "./reviews/desk/rev-1" in links
        console.state.apply(desk.passed_now())
        await user.should_see("of 4 items in all; passed", retries=PATIENT)
        tab.ended = True
        await user.should_see("this session has ended", retries=PATIENT)
    app.middleware_stack = None


async def test_pairs_of_a_trial_are_compared_by_keys_and_more_are_shown_as_they_come(
    tab: Tab, console: Any, desk: Any, log: Any, store: Any
):
    await log.publish(await desk.stored_pairs(store))
    await console.refresh()
    tab.review_id = "compare-1"
    async with user_simulation(root=tab.build) as user:
        await user.open("/")
        await user.should_see("Item 1 of 3; 0 answered", retries=PATIENT)
        await user.should_not_see("a better answer, in your words")
        await tab.send(user, number=1, key="f", text="")  # no tags here
        for number in (1, 2, 3):
            await tab.send(user, number=number, key="1", text="")
        await user.should_see("All 3 pairs are compared")
        await tab.send(user, number=0, key="a", text="")
        await tab.send(user, number=0, key="Enter", text="")
        await user.should_see("not saved: review_id: compare-1 needs no verdict")
        assert [event.data.type for event in log.events[2:]] == ["answers.compared"] * 3
        await log.publish(await desk.stored_pairs(store, revision=2))
        await console.refresh()
        await user.should_see("Item 4 of 6; 3 answered", retries=PATIENT)
    app.middleware_stack = None
