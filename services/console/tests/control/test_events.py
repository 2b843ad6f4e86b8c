"""Events that are told as they come: to whom, from where, and which are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tunewheel_console.control import events as module
from tunewheel_console.control.events import Feed, Told, follow
from tunewheel_console.state import Rest
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import Caller, Grant, NotAuthenticated, Role
from tunewheel_testing.story import example


def caller(*roles: Role, projects: set[str] | None = None) -> Caller:
    held = frozenset(roles or (Role.VIEWER,))
    return Caller(Principal(name="ann"), (Grant(held, None if projects is None else frozenset(projects)),))


class Listener:
    """One caller who follows the feed."""

    def __init__(
        self, state: Any, feed: Feed, who: Caller, *, after: str | None = None, **asked: Any
    ) -> None:
        self.now = who
        project, types = asked.get("project"), frozenset(asked.get("types", ()))
        self.stream: AsyncIterator[str] = follow(
            feed, Told(state, who, project, types), self.identify, after=after
        )

    async def identify(self) -> Caller:
        if self.now.principal is None:
            raise NotAuthenticated("gone")
        return self.now

    async def begin(self) -> Listener:
        assert await anext(self.stream) == ": events\n\n"
        return self

    async def next(self) -> dict[str, str]:
        async with asyncio.timeout(60):
            message = await anext(self.stream)
        return dict(line.split(": ", 1) for line in message.strip().splitlines())


@pytest.fixture
def tell(state: Any, feed: Feed) -> Any:
    def tell(*events: Any) -> None:
        for event in events:
            state.apply(event)
            feed.add(event)

    return tell


async def test_an_event_is_told_as_a_cloudevent(state: Any, feed: Feed, desk: Any, tell: Any):
    listener = await Listener(state, feed, caller()).begin()
    started = desk.started()
    tell(started)
    message = await listener.next()
    assert (message["id"], message["event"]) == (started.id, "train.started")
    data = json.loads(message["data"])
    assert (data["type"], data["project"], data["data"]["run_id"]) == ("train.started", "desk", "run-1")
    assert "causationid" not in data


async def test_only_what_the_caller_may_read_and_asked_for_is_told(
    state: Any, feed: Feed, desk: Any, make_desk: Any, tell: Any
):
    shop = make_desk("shop")
    everything = await Listener(state, feed, caller(projects={"desk", "shop"}), project="desk").begin()
    typed = await Listener(state, feed, caller(projects={"shop"}), types={"train.started"}).begin()
    last = desk.trained()
    tell(shop.declared(), desk.started(), shop.started(), make_desk("yard").started(), last)
    assert [(await everything.next())["event"] for _ in range(2)] == ["train.started", "train.completed"]
    assert json.loads((await typed.next())["data"])["project"] == "shop"


async def test_busy_topics_are_told_only_by_name_and_never_held(state: Any, feed: Feed, desk: Any, tell: Any):
    plain = await Listener(state, feed, caller()).begin()
    named = await Listener(state, feed, caller(Role.REVIEWER), types={"inference.completed"}).begin()
    completion = desk.completion(1)
    tell(completion, desk.started())
    assert (await plain.next())["event"] == "train.started"
    assert (await named.next())["id"] == completion.id
    assert completion not in feed._held


async def test_figures_of_detectors_are_told_only_by_name_and_never_held(
    state: Any, feed: Feed, desk: Any, tell: Any
):
    plain = await Listener(state, feed, caller()).begin()
    named = await Listener(state, feed, caller(), types={"window.judged"}).begin()
    figures = desk.watched("novelty")
    feed.add(figures)
    tell(desk.started())
    assert (await plain.next())["event"] == "train.started"
    assert (await named.next())["id"] == figures.id
    assert figures not in feed._held


async def test_what_would_unblind_a_review_is_not_told(
    state: Any, feed: Feed, desk: Any, store: Any, tell: Any
):
    listener = await Listener(
        state, feed, caller(Role.REVIEWER), types={"inference.completed", "review.answered", "train.started"}
    ).begin()
    tell(await desk.stored_review(store, items=1, reviewers=1))
    answered = {"review_id": "rev-1", "item_id": "i-0", "reviewer": "ann", "preference": "better"}
    tell(desk.completion(1), desk.of_run("review.answered", **answered), desk.started())
    assert (await listener.next())["event"] == "train.started"


async def test_names_of_people_are_told_to_operators_alone(state: Any, feed: Feed, desk: Any, tell: Any):
    viewer = await Listener(state, feed, caller()).begin()
    operator = await Listener(state, feed, caller(Role.OPERATOR)).begin()
    tell(desk.say("erasure.requested", erasure_id="L", customer="C", requested_by="m"), desk.started())
    assert (await viewer.next())["event"] == "train.started"
    assert (await operator.next())["event"] == "erasure.requested"


@pytest.mark.parametrize("topic", ["inference.completed", "feedback.received", "record.ingested"])
async def test_texts_of_users_are_told_to_reviewers_of_their_project_alone(
    state: Any, feed: Feed, desk: Any, make_desk: Any, topic: str
):
    types = frozenset({topic, "train.started"})
    event = desk.say(topic, **example(topic) | {"project": "desk"})
    for who, may in (
        (caller(), False), (caller(Role.OPERATOR), False), (caller(Role.REVIEWER, projects={"shop"}), False),
        (caller(Role.REVIEWER, projects={"desk"}), True),
    ):  # fmt: skip
        assert Told(state, who, None, types)(event) is may
    assert Told(state, caller(projects={"desk"}), None, types)(desk.started())


async def test_who_may_not_read_a_type_is_told_so(ask: Any):
    for asker, topic, projects in (
        (Role.VIEWER, "inference.completed", {"desk"}), (Role.OPERATOR, "record.ingested", {"desk"}),
        (Role.REVIEWER, "feedback.received", {"shop"}), (Role.REVIEWER, "erasure.completed", {"desk"}),
    ):  # fmt: skip
        answer = await ask("events", projects, asker=asker, project="desk", type=["train.started", topic])
        assert answer.status_code == 403, (asker, topic)


async def test_a_reader_that_comes_again_goes_on_where_it_was(state: Any, feed: Feed, desk: Any, tell: Any):
    first, second, third = desk.started(), desk.progressed(1, 1.0), desk.trained()
    tell(first, second, third)
    listener = await Listener(state, feed, caller(), after=first.id).begin()
    assert [(await listener.next())["id"] for _ in range(2)] == [second.id, third.id]
    again = await Listener(state, feed, caller(), after="long-gone").begin()
    assert (await again.next())["event"] == "gap"


async def test_long_conversations_that_nobody_takes_become_a_gap(
    state: Any, feed: Feed, desk: Any, tell: Any, monkeypatch: Any
):
    completions = [desk.completion(n) for n in range(6)]
    size = len(completions[0].data.model_dump_json())
    monkeypatch.setattr("tunewheel_console.control.events.WAITING_BYTES", int(2.5 * size))
    listener = await Listener(state, feed, caller(Role.REVIEWER), types={"inference.completed"}).begin()
    for told in (completions[:3], completions[3:]):  # what was taken does not count any more
        tell(*told)
        assert (await listener.next())["event"] == "gap"
        assert (await listener.next())["id"] == told[2].id


async def test_a_reader_that_is_too_slow_is_told_of_the_gap(
    state: Any, feed: Feed, desk: Any, tell: Any, monkeypatch: Any
):
    monkeypatch.setattr("tunewheel_console.control.events.WAITING", 3)
    listener = await Listener(state, feed, caller()).begin()
    steps = [desk.progressed(n, 1.0) for n in range(5)]
    tell(*steps)
    assert (await listener.next())["event"] == "gap"
    assert [(await listener.next())["id"] for _ in range(2)] == [step.id for step in steps[3:]]


@pytest.mark.parametrize("later", [caller(projects={"shop"}), Caller(None, ())])
async def test_who_loses_the_role_is_told_nothing_more(
    state: Any, feed: Feed, desk: Any, tell: Any, monkeypatch: Any, later: Caller
):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)
    listener = await Listener(state, feed, caller(projects={"desk"}), project="desk").begin()
    listener.now = later
    await asyncio.sleep(0.02)
    tell(desk.progressed(1, 1.0))
    with pytest.raises(StopAsyncIteration):
        await anext(listener.stream)


async def test_silence_is_broken_by_comments_until_the_process_stops(state: Any, monkeypatch: Any):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.01)
    over = False
    feed = Feed(lambda: over)
    listener = await Listener(state, feed, caller()).begin()
    assert (await anext(listener.stream)).startswith(":")
    over = True
    with pytest.raises(StopAsyncIteration):
        await anext(listener.stream)
    assert not feed._readers


async def test_an_unknown_type_is_refused(ask: Any):
    answer = await ask("/events", type="train.started.soon")
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "type")


async def test_figures_of_an_evaluation_are_withheld_while_a_review_is_open(
    state: Any, feed: Feed, desk: Any, tell: Any
):
    listener = await Listener(state, feed, caller()).begin()
    request, verdict = desk.review_requested(**desk.asks("rv-1", items=1, reviewers=1)), desk.passed()
    assert request.data.contestants
    assert verdict.data.contestants
    tell(desk.trained(), request)
    assert (await listener.next())["event"] == "train.completed"
    told = json.loads((await listener.next())["data"])["data"]
    assert (told["contestants"], told["checks"], told["run_id"]) == ([], [], request.data.run_id)
    tell(verdict)
    assert json.loads((await listener.next())["data"])["data"]["contestants"]


async def test_an_event_of_a_foreign_project_is_no_place_to_go_on_from(
    state: Any, feed: Feed, desk: Any, tell: Any
):
    """Whoever guesses an id must not learn whether there is such an event."""
    declared = desk.declared()
    tell(declared, desk.versioned())
    for who, first in ((caller(), "dataset.versioned"), (caller(projects={"other"}), "gap")):
        listener = await Listener(state, feed, who, after=declared.id).begin()
        assert (await listener.next())["event"] == first


@pytest.mark.parametrize(("is_asked", "is_behind"), [(True, False), (False, True)])
async def test_figures_are_withheld_while_a_project_at_rest_may_have_an_open_review(
    state: Any, feed: Feed, desk: Any, tell: Any, is_asked: bool, is_behind: bool
):
    rest = state.projects.resting["desk"] = Rest(is_asked=is_asked, is_behind=is_behind)
    told = Told(state, caller(Role.REVIEWER), None, frozenset({"inference.completed"}))
    assert told.is_withheld("desk")
    assert not told(desk.completion(1))
    rest.is_asked = rest.is_behind = False
    assert not told.is_withheld("desk")
    assert told(desk.completion(1))
