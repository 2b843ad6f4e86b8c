"""The page, drawn and clicked by NiceGUI's simulated user."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from nicegui import app, ui
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation
from tunewheel_console.control.projects import summary_of
from tunewheel_console.page import Page
from tunewheel_console.state import Rest
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.roles import ANYBODY, Caller, Grant, NotAuthenticated, Role

PATIENT = 600
"""Looks, a tenth of a second apart, at what comes of a click or of an event."""


class Recorder:
    """Stands where events are published."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.away = False

    async def build(self, project: str, *, principal: Principal | None) -> None:
        if self.away:
            raise TransientError("the broker is not connected yet")
        self.done.append(("build", project, principal))

    async def control(self, project: str, run_id: str, action: Any, *, principal: Principal | None) -> None:
        self.done.append((action.value, project, run_id, principal))

    async def command(self, project: str, model_id: str, action: str, **told: Any) -> None:
        self.done.append((action, project, model_id, told))

    async def review(
        self, request: Any, *, reviewer: str, principal: Principal | None, verdict: str, comment: str
    ) -> None:
        self.done.append((verdict, request.project, request.data.run_id, reviewer, comment, principal))


class Visitor:
    """Whoever has the page open; what they may do can change, and their session can end."""

    def __init__(self) -> None:
        self.caller = ANYBODY
        self.ended = False

    def becomes(self, name: str, **grants: Any) -> None:
        """Log in as ``name``, with roles by project; ``every`` stands for all projects."""
        self.caller = Caller(
            Principal(name=name),
            tuple(
                Grant(frozenset(map(Role, roles)), None if project == "every" else frozenset({project}))
                for project, roles in grants.items()
            ),
        )

    async def who(self) -> Caller:
        if self.ended:
            raise NotAuthenticated("this session has ended; log in again")
        return self.caller


@pytest.fixture
def actions() -> Recorder:
    return Recorder()


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


@pytest.fixture
async def user(state: Any, actions: Recorder, visitor: Visitor) -> AsyncIterator[User]:
    def root() -> None:
        page = Page(state, actions, visitor.caller, visitor.who, refresh_seconds=0.05)  # type: ignore[arg-type]
        page.build(csrf="token")

    async with user_simulation(root=root) as simulated:
        yield simulated
    # NiceGUI has one app per process, and one that has started takes no other test's console.
    app.middleware_stack = None


async def test_an_empty_console_says_what_to_do(user: User):
    await user.open("/")
    await user.should_see("No project is declared yet")


async def test_the_whole_turn_is_on_the_page(user: User, state: Any, desk: Any):
    for event in desk.turn():
        state.apply(event)
    await user.open("/")
    for text in ("desk", "input drift", "rouge_l: 0.4 of 0.1 needed", "stages: desk-1 production"):
        await user.should_see(text)
    await user.should_see(marker="step-monitor-lit")
    await user.should_not_see(marker="step-train-lit")
    await user.should_see(marker="loss-curve")
    with user:
        shown = [row for table in user.find(ui.table).elements for row in table.rows]
    assert {"ds-1"} <= {row.get("dataset") for row in shown}
    assert not [row for row in shown if "solar" in str(row)], "what users wrote"


async def test_why_a_turn_waits_and_what_to_do_is_on_the_page(user: User, state: Any, desk: Any):
    for event in desk.turn():
        state.apply(event)
    await user.open("/")
    await user.should_see("curate has decided nothing about it yet")
    state.apply(desk.decided())
    await user.should_see("decision: curate: waits for approval", retries=PATIENT)
    await user.should_see("to do: Run `tunewheel dataset build`.")


async def test_news_appear_without_reloading(user: User, state: Any, desk: Any):
    await user.open("/")
    state.apply(desk.declared())
    await user.should_see(marker="project-desk", retries=PATIENT)
    state.count_dead_letters({"ticket.published": 1})
    await user.should_see("1 dead letter", retries=PATIENT)


async def test_traffic_redraws_nothing_and_a_turn_only_its_project(user: User, state: Any, make_desk: Any):
    desk, other = make_desk("desk"), make_desk("other")
    for one in (desk, other):
        for event in one.turn():
            state.apply(event)
    state.apply(desk.completion(0))
    await user.open("/")
    await user.should_see("inference.completed 1")

    def drawn(project: str) -> set[int]:
        (card,) = user.find(marker=f"project-{project}").elements
        return {element.id for element in card.descendants()}

    with user:
        before = {project: drawn(project) for project in ("desk", "other")}
    for n in range(1, 5):
        state.apply(desk.completion(n))
    await user.should_see("inference.completed 5", retries=PATIENT)
    with user:
        assert {project: drawn(project) for project in before} == before
    state.apply(desk.review_requested(run_id="run-2"))
    await user.should_see("run-2 met its criteria", retries=PATIENT)
    with user:
        assert drawn("other") == before["other"]
        assert not drawn("desk") & before["desk"]


async def test_what_waits_for_a_person_shows_what_it_is_judged_by(user: User, state: Any, desk: Any):
    state.apply(desk.review_requested())
    state.apply(desk.failed(run_id="run-2"))
    await user.open("/")
    with user:
        (card,) = user.find(marker="review-run-1").elements
        texts = [element.text for element in card.descendants() if isinstance(element, ui.label)]
        (table,) = [element for element in card.descendants() if isinstance(element, ui.table)]
    assert "rouge_l: 0.4 of 0.1 needed" in texts
    assert {row["role"] for row in table.rows} == {"base", "candidate"}


async def test_a_review_is_signed_confirmed_and_sent(user: User, state: Any, desk: Any, actions: Recorder):
    state.apply(desk.review_requested())
    await user.open("/")
    user.find("Approve").click()
    await user.should_see("Enter your name first", retries=PATIENT)
    user.find(marker="reviewer").type("ann")
    user.find("Approve").click()
    await user.should_see("Approve run-1 of desk?", retries=PATIENT)
    assert not actions.done
    user.find(marker="comment").type("reads well")
    user.find(marker="confirm").click()
    await user.should_see("run-1 approved", retries=PATIENT)
    assert actions.done == [("approved", "desk", "run-1", "ann", "reads well", None)]


async def test_a_comment_belongs_to_one_review(user: User, state: Any, make_desk: Any, actions: Recorder):
    desk, other = make_desk("desk"), make_desk("other")
    state.apply(desk.review_requested())
    await user.open("/")
    user.find(marker="reviewer").type("ann")
    user.find("Approve").click()
    await user.should_see(marker="comment", retries=PATIENT)
    user.find(marker="comment").type("of desk")
    user.find("Back").click()
    await user.should_not_see(marker="comment", retries=PATIENT)
    state.apply(desk.reviewed())  # by somebody else
    state.apply(other.review_requested())
    await user.should_see(marker="project-other", retries=PATIENT)
    user.find("Reject").click()
    await user.should_see("A rejection is final", retries=PATIENT)
    user.find(marker="confirm").click()
    await user.should_see("run-1 rejected", retries=PATIENT)
    assert actions.done == [("rejected", "other", "run-1", "ann", "", None)]


async def test_build_and_cancel_are_commands(user: User, state: Any, desk: Any, actions: Recorder):
    state.apply(desk.started())
    await user.open("/")
    user.find("Build").click()
    await user.should_see("asked for a new version of desk", retries=PATIENT)
    user.find("cancel").click()
    await user.should_see("cancel sent to run-1", retries=PATIENT)
    assert actions.done == [("build", "desk", None), ("cancel", "desk", "run-1", None)]


async def test_a_command_on_a_model_asks_why_and_counts_for_what_was_seen(
    user: User, state: Any, desk: Any, actions: Recorder
):
    for event in desk.turn():
        state.apply(event)
    generation = state.projects["desk"].desired.generation
    await user.open("/")
    for word in ("rollback", "pin", "retire", "reject"):
        await user.should_see(marker=f"{word}-desk-1")
    user.find(marker="rollback-desk-1").click()
    await user.should_see("rollback desk-1 of desk?", retries=PATIENT)
    user.find(marker="confirm").click()
    await user.should_see("Say why first", retries=PATIENT)
    assert not actions.done
    user.find(marker="reason").type("promises refunds")
    user.find(marker="confirm").click()
    await user.should_see("rollback sent for desk-1", retries=PATIENT)
    told = {"reason": "promises refunds", "force": False, "generation": generation, "principal": None}
    assert actions.done == [("rollback", "desk", "desk-1", told)]


async def test_a_pinned_model_can_be_unpinned_and_what_the_registry_refused_is_told(
    user: User, state: Any, desk: Any
):
    for event in (*desk.turn(), desk.pinned("desk-1"), desk.refused("promote", "desk-1")):
        state.apply(event)
    await user.open("/")
    await user.should_see("desk-1 (production, pinned)")
    await user.should_see(marker="unpin-desk-1")
    await user.should_not_see(marker="pin-desk-1")
    await user.should_see("last refused: promote desk-1: model_id: is in production already")


async def test_all_traffic_is_stopped_but_to_one_whatever_happened_meanwhile(
    user: User, state: Any, desk: Any, actions: Recorder
):
    for event in (*desk.turn(), desk.pinned("base-1")):
        state.apply(event)
    await user.open("/")
    await user.should_see(marker="stop-champion")
    await user.should_see(marker="unpin-base-1")
    user.find(marker="stop-base").click()
    await user.should_see("stop all but the base of desk?", retries=PATIENT)
    user.find(marker="reason").type("answers nonsense")
    user.find(marker="confirm").click()
    await user.should_see("stop sent for base", retries=PATIENT)
    told = {"reason": "answers nonsense", "force": False, "generation": None, "principal": None}
    assert actions.done == [("stop", "desk", "base", told)]


async def test_a_command_that_was_not_sent_says_so(user: User, state: Any, desk: Any, actions: Recorder):
    actions.away = True
    state.apply(desk.declared())
    await user.open("/")
    user.find("Build").click()
    await user.should_see("not sent: the broker is not connected yet", retries=PATIENT)


@pytest.fixture
def two(state: Any, make_desk: Any) -> None:
    """Two projects, each with a run that goes on and a review that waits."""
    for desk in (make_desk("desk"), make_desk("secret")):
        for event in (desk.declared(), desk.started(), desk.review_requested(run_id="run-2")):
            state.apply(event)
    state.count_dead_letters({"ticket.published": 7})


def shown(user: User) -> str:
    """Return all texts of the page, of elements and of tables."""
    with user:
        elements = list(user.client.elements.values())  # type: ignore[union-attr]
        rows = [str(row) for one in elements if isinstance(one, ui.table) for row in one.rows]
        return " ".join([*(str(one.props) + str(getattr(one, "text", "")) for one in elements), *rows])


@pytest.mark.usefixtures("two")
async def test_a_viewer_sees_their_projects_and_no_buttons(user: User, visitor: Visitor):
    visitor.becomes("vic", desk=["viewer"])
    await user.open("/")
    await user.should_see("vic (viewer in desk)")
    await user.should_see("run-2 met its criteria")
    for word in ("Build", "Approve", "Reject", "pause", "resume", "cancel"):
        await user.should_not_see(word, kind=ui.button)
    for hidden in ("7 dead letters", "your name"):
        await user.should_not_see(hidden)
    assert "secret" not in shown(user)


@pytest.mark.usefixtures("two")
async def test_roles_of_one_project_give_no_button_of_another(user: User, visitor: Visitor):
    visitor.becomes("ann", desk=["reviewer"], secret=["operator"])
    await user.open("/")
    await user.should_see("ann (viewer in desk, secret; reviewer in desk; operator in secret)")
    with user:
        cards = {
            project: user.find(marker=f"project-{project}").elements.pop() for project in ("desk", "secret")
        }
        buttons = {
            project: {one.text for one in card.descendants() if isinstance(one, ui.button)}
            for project, card in cards.items()
        }
    assert buttons == {"desk": {"Approve", "Reject"}, "secret": {"Build", "pause", "resume", "cancel"}}


@pytest.mark.usefixtures("two")
async def test_what_people_do_names_them(user: User, visitor: Visitor, actions: Recorder):
    visitor.becomes("ann", desk=["reviewer", "operator"])
    await user.open("/")
    user.find("Build").click()
    await user.should_see("asked for a new version of desk", retries=PATIENT)
    user.find("Approve").click()
    await user.should_see("Approve run-2 of desk?", retries=PATIENT)
    user.find(marker="confirm").click()
    await user.should_see("run-2 approved", retries=PATIENT)
    ann = Principal(name="ann")
    assert actions.done == [("build", "desk", ann), ("approved", "desk", "run-2", "ann", "", ann)]


@pytest.mark.usefixtures("two")
async def test_a_role_that_is_taken_away_leaves_an_open_tab(user: User, visitor: Visitor, actions: Recorder):
    visitor.becomes("ann", every=["operator"])
    await user.open("/")
    await user.should_see(marker="project-secret")
    await user.should_see("7 dead letters")
    visitor.becomes("ann", desk=["viewer"])
    await user.should_see("ann (viewer in desk)", retries=PATIENT)
    await user.should_not_see(marker="project-secret", retries=PATIENT)
    await user.should_not_see("Build", retries=PATIENT)
    assert "secret" not in shown(user)
    assert not actions.done


async def test_a_command_is_judged_by_what_somebody_may_do_by_then(
    state: Any, desk: Any, actions: Recorder, visitor: Visitor
):
    state.apply(desk.started())
    pages = list[Page]()

    def root() -> None:
        page = Page(state, actions, visitor.caller, visitor.who, refresh_seconds=3_600)  # type: ignore[arg-type]
        page.build()
        pages.append(page)

    async with user_simulation(root=root) as user:
        visitor.becomes("vic", desk=["viewer"])
        await user.open("/")
        with user:
            await pages[0].control("desk", "run-1", TrainAction.CANCEL)
            await pages[0].build_dataset("desk")
        await user.should_see("not sent: vic lacks the role operator in project 'desk'")
        visitor.becomes("vic", desk=["operator"])
        visitor.ended = True
        with user:
            await pages[0].control("desk", "run-1", TrainAction.CANCEL)
        await user.should_see("this session has ended")
        assert not actions.done
    app.middleware_stack = None


@pytest.mark.usefixtures("two")
async def test_a_session_that_ends_leaves_nothing_on_an_open_tab(user: User, visitor: Visitor, state: Any):
    visitor.becomes("ann", every=["reviewer"])
    await user.open("/")
    user.find("Approve").click()
    await user.should_see("Approve run-2", retries=PATIENT)
    visitor.ended = True
    await user.should_see("this session has ended", retries=PATIENT)
    await user.should_not_see("run-2")
    assert "secret" not in shown(user)


async def test_what_somebody_may_read_but_is_not_declared_is_named(user: User, visitor: Visitor):
    visitor.becomes("vic", desk=["viewer"])
    await user.open("/")
    await user.should_see("None of the projects that you may read is declared yet: desk")


async def test_a_project_at_rest_is_named_and_shown_when_somebody_asks(user: User, state: Any, desk: Any):
    for event in desk.turn():
        state.apply(event)
    project = state.projects.pop("desk")
    state.projects.resting["desk"] = Rest(summary=summary_of(project))

    async def open_project(name: str) -> None:
        del state.projects.resting[name]
        state.projects[name] = project

    state.projects.open = open_project
    await user.open("/")
    await user.should_see("serving; 1 runs")
    await user.should_not_see(marker="loss-curve")
    user.find(marker="show-desk").click()
    await user.should_see(marker="loss-curve", retries=PATIENT)
    for runs in (2, 3):  # the project rests again, and goes on
        state.projects.pop("desk", None)
        told = summary_of(project)
        counts = told.counts.model_copy(update={"runs": runs})
        state.projects.resting["desk"] = Rest(summary=told.model_copy(update={"counts": counts}))
        state.version += 1
        await user.should_see(f"serving; {runs} runs", retries=PATIENT)
        await user.should_not_see(marker="loss-curve")
