"""The ledger under crashes, redeliveries and reordered logs: hypothesis plays the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.principal import Principal
from tunewheel_registry.ledger import Ledger, Require
from tunewheel_runtime.identity.roles import Role


class Killed(TransientError):
    """The process dies here."""


class MemoryLog:
    """A log that survives the process; after ``kill_after`` events the writer dies, before or after the ack.
    It cuts decisions off in the middle, as earlier releases did."""

    def __init__(self) -> None:
        self.events: list[Envelope[Any]] = []
        self.kill_after: int | None = None
        self.lose_last = True

    def new(self, data: Any, *, cause: Envelope[Any] | None = None) -> Envelope[Any]:
        return new_event(data, source="/test", cause=cause)

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        for envelope in envelopes:
            self._publish(envelope)

    def _publish(self, envelope: Envelope[Any]) -> None:
        if self.kill_after is not None:
            self.kill_after -= 1
            if self.kill_after < 0:
                self.kill_after = None
                if not self.lose_last:
                    self.events.append(envelope)
                raise Killed("killed")
        self.events.append(envelope)

    @property
    def lifecycle(self) -> list[Envelope[Any]]:
        return [event for event in self.events if not isinstance(event.data, ServingDesired)]

    def desired(self) -> ServingDesired | None:
        """What compaction leaves."""
        kept = [event.data for event in self.events if isinstance(event.data, ServingDesired)]
        return kept[-1] if kept else None


async def nothing() -> None:
    return None


async def anybody(*_: Any, **__: Any) -> None:
    """Where identity is open."""


def ledger_over(
    log: MemoryLog, desk: Any, order: list[Envelope[Any]] | None = None, require: Require = anybody
) -> Ledger:
    async def find_spec(project: str) -> Any:
        return desk.spec() if project == desk.project else None

    ledger = Ledger(log, find_spec, nothing, require)
    for envelope in order if order is not None else log.lifecycle:
        ledger.replay(envelope)
    return ledger


async def run(desk: Any, triggers: list[Envelope[Any]], kills: list[tuple[int, bool]]) -> MemoryLog:
    """Feed triggers; at each kill a new process replays the log and the trigger is redelivered."""
    log = MemoryLog()
    ledger = ledger_over(log, desk)
    for trigger in triggers:
        while True:
            if kills:
                log.kill_after, log.lose_last = kills.pop(0)
            try:
                await ledger.handle(trigger)
            except Killed:
                ledger = ledger_over(log, desk)
                continue
            except InvalidEvent:
                pass
            log.kill_after = None
            break
    return log


ACTIONS = ("promote", "rollback", "pin", "unpin", "retire", "reject")


def triggers_of(desk: Any) -> list[Envelope[Any]]:
    everything: list[Envelope[Any]] = []
    for n in (1, 2, 3):
        everything += [desk.trained(n), desk.passed(n), desk.failed(n), desk.failed(n, field="review")]
        everything += [desk.passed(n, against=m) for m in range(4) if m != n]
        everything += [desk.commanded(n, action) for action in ACTIONS]
        everything += [
            desk.judged(n, stage, verdict)
            for stage in ("shadow", "canary")
            for verdict in ("passed", "failed")
        ]
    return everything


@given(data=st.data(), shadow=st.booleans(), canary=st.booleans())
def test_kills_and_redeliveries_end_in_the_same_log(make_desk: Any, data: Any, shadow: bool, canary: bool):
    desk = make_desk(shadow=shadow, canary=canary)
    triggers = data.draw(st.lists(st.sampled_from(triggers_of(desk)), max_size=14))
    kills = data.draw(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=6))
    calm = asyncio.run(run(desk, triggers, []))
    rough = asyncio.run(run(desk, triggers, list(kills)))
    assert [e.id for e in rough.lifecycle] == [e.id for e in calm.lifecycle]
    assert rough.desired() == calm.desired()


@given(data=st.data())
def test_the_state_does_not_depend_on_how_the_topics_interleave(make_desk: Any, data: Any):
    desk = make_desk()
    triggers = data.draw(st.lists(st.sampled_from(triggers_of(desk)), max_size=14))
    log = asyncio.run(run(desk, triggers, []))
    queues = {t: [e for e in log.lifecycle if e.data.type == t] for t in {e.data.type for e in log.lifecycle}}
    order: list[Envelope[Any]] = []
    while any(queues.values()):
        topic = data.draw(st.sampled_from(sorted(t for t, queue in queues.items() if queue)))
        order.append(queues[topic].pop(0))
    straight, mixed = ledger_over(log, desk), ledger_over(log, desk, order)
    assert mixed.state(desk.project) == straight.state(desk.project)
    assert mixed.state(desk.project).champion == straight.state(desk.project).champion


async def decided_twice(desk: Any, *triggers: list[Envelope[Any]]) -> list[Envelope[Any]]:
    """Return the log on which two registries went on from one state: triggers of both, of each alone."""
    both, *own = triggers
    before = await run(desk, both, [])
    events = [*before.lifecycle]
    for some in own:
        log = MemoryLog()
        ledger = ledger_over(log, desk, before.lifecycle)
        for trigger in some:
            with contextlib.suppress(InvalidEvent):
                await ledger.handle(trigger)
        events += log.lifecycle
    return events


@settings(max_examples=30)
@given(data=st.data())
def test_two_decisions_of_one_generation_give_one_state_in_whatever_order_they_arrive(
    make_desk: Any, data: Any
):
    desk = make_desk()
    some = st.lists(st.sampled_from(triggers_of(desk)), max_size=6)
    events = asyncio.run(decided_twice(desk, *(data.draw(some) for _ in range(3))))
    trigger = data.draw(st.sampled_from(triggers_of(desk)))
    followed: list[tuple[Any, list[str]]] = []
    for order in (events, events[::-1], data.draw(st.permutations(events))):
        after = MemoryLog()
        ledger = ledger_over(after, desk, order)
        state = ledger.state(desk.project)
        with contextlib.suppress(InvalidEvent):
            asyncio.run(ledger.handle(trigger))
        followed.append((state, [event.id for event in after.events]))
    assert followed[0] == followed[1] == followed[2]


@pytest.mark.parametrize("first", [0, 1])
async def test_of_two_decisions_of_one_generation_the_later_one_counts(desk: Any, first: int):
    """A stalled registry promotes a canary that its successor has rolled back."""
    verdicts = [[desk.judged(2, "canary", verdict)] for verdict in ("passed", "failed")]
    events = await decided_twice(desk, [desk.passed(1), desk.passed(2)], *verdicts)
    ledger = ledger_over(MemoryLog(), desk, events[::-1] if first else events)
    for event in events:  # each is on the log twice
        ledger.replay(event)
    state = ledger.state("desk")
    assert state.models[desk.model_id(2)].stage.value == "rolled_back"
    assert state.champion is not None
    assert state.champion.model_id == desk.model_id(1)


@given(data=st.data(), shadow=st.booleans(), canary=st.booleans())
def test_there_is_never_more_than_one_champion_and_one_candidate(
    make_desk: Any, data: Any, shadow: bool, canary: bool
):
    desk = make_desk(shadow=shadow, canary=canary)
    triggers = data.draw(st.lists(st.sampled_from(triggers_of(desk)), max_size=20))
    state = ledger_over(asyncio.run(run(desk, triggers, [])), desk).state(desk.project)
    in_production = [m for m in state.models.values() if m.stage.value == "production"]
    assert len(in_production) <= 1
    assert len(state.candidates) <= 1
    if state.champion is None:
        assert state.predecessor is None


async def test_an_undeclared_project_is_refused(desk: Any, make_desk: Any):
    log = MemoryLog()
    ledger = ledger_over(log, make_desk(project="other"))
    with pytest.raises(InvalidEvent, match="not declared") as caught:
        await ledger.handle(desk.trained(1))
    assert caught.value.field == "project"
    assert log.events == []


async def test_a_redelivered_trigger_states_the_desired_state_again(desk: Any):
    log = MemoryLog()
    ledger = ledger_over(log, desk)
    await ledger.handle(desk.passed(1))
    once = len(log.lifecycle)
    await ledger.handle(desk.passed(1))
    assert len(log.lifecycle) == once
    assert len({e.id for e in log.events if isinstance(e.data, ServingDesired)}) == 1


async def test_a_new_spec_changes_what_is_desired_and_an_older_one_told_again_does_not(make_desk: Any):
    log, older, newer = MemoryLog(), make_desk(percent=20), make_desk(percent=45)
    newest = older

    async def find_spec(_: str) -> Any:
        return newest.spec()

    ledger = Ledger(log, find_spec, nothing, anybody)
    await ledger.handle(older.passed(1))
    await ledger.handle(older.passed(2))
    newest = newer
    for declared in (newer.declared(), older.declared()):
        await ledger.redeclare(declared)
        desired = log.desired()
        assert desired is not None
        assert [r.percent for r in desired.desired.routes] == [55, 45]


async def test_a_spec_that_came_while_a_decision_waited_is_the_one_that_is_served(make_desk: Any):
    log, desk = MemoryLog(), make_desk(percent=20)
    read = [desk]  # what the view has read of the log

    async def find_spec(_: str) -> Any:
        return read[-1].spec()

    async def catch_up() -> None:
        read.append(make_desk(percent=45))

    ledger = Ledger(log, find_spec, catch_up, anybody)
    await ledger.handle(desk.passed(1))
    read.remove(read[-1])
    await ledger.handle(desk.passed(2))
    desired = log.desired()
    assert desired is not None
    assert [r.percent for r in desired.desired.routes] == [55, 45]


async def test_an_event_that_fits_nothing_does_not_stop_the_rest(desk: Any):
    log = MemoryLog()
    await ledger_over(log, desk).handle(desk.passed(1))
    without_registration = [e for e in log.lifecycle if e.data.type != "model.registered"]
    ledger = ledger_over(log, desk, without_registration)
    await ledger.handle(desk.passed(2))
    champion = ledger.state("desk").champion
    assert champion is not None
    assert champion.model_id == desk.model_id(2)


class Roster:
    """Who may review project ``desk`` now; ``asked`` counts how often that was asked."""

    def __init__(self, *names: str) -> None:
        self.reviewers = set(names)
        self.asked = 0

    async def require(self, principal: Principal | None, role: Role, project: str, *, field: str) -> None:
        self.asked += 1
        assert project == "desk"
        allowed = self.reviewers if role is Role.REVIEWER else {"olga"} & self.reviewers
        if principal is None or principal.name not in allowed:
            raise InvalidEvent(field=field, reason=f"lacks the role {role.value}")


@pytest.mark.parametrize("by", ["", "eve"])
async def test_a_verdict_on_the_review_of_somebody_without_the_role_changes_nothing(desk: Any, by: str):
    log = MemoryLog()
    ledger = ledger_over(log, desk, require=Roster("ada").require)
    for forged in (desk.passed(1, by=by), desk.failed(1, by=by)):
        with pytest.raises(InvalidEvent) as caught:
            await ledger.handle(forged)
        assert caught.value.field == "principal"
    assert log.events == []
    await ledger.handle(desk.passed(1, by="ada"))
    assert ledger.state("desk").champion is not None


async def test_a_verdict_of_figures_alone_needs_nobody(desk: Any):
    ledger = ledger_over(MemoryLog(), desk, require=Roster().require)
    await ledger.handle(desk.passed(1))
    assert ledger.state("desk").champion is not None


@pytest.mark.parametrize("published", range(3))
async def test_a_decision_that_began_is_finished_when_its_reviewer_may_not_review_any_more(
    desk: Any, published: int
):
    log, roster = MemoryLog(), Roster("ada")
    passed = desk.passed(1, by="ada")
    ledger = ledger_over(log, desk, require=roster.require)
    await ledger.handle(desk.trained(1))
    log.kill_after = published
    with pytest.raises(Killed):
        await ledger.handle(passed)
    roster.reviewers.clear()
    ledger = ledger_over(log, desk, require=roster.require)
    if published == 0:  # nothing of it is on the log
        with pytest.raises(InvalidEvent, match="lacks the role"):
            await ledger.handle(passed)
    else:
        await ledger.handle(passed)
    assert (ledger.state("desk").champion is not None) is (published > 0)


async def test_a_verdict_that_bears_the_id_of_an_accepted_one_is_asked_about(desk: Any):
    log, roster = MemoryLog(), Roster("ada")
    ledger = ledger_over(log, desk, require=roster.require)
    accepted = desk.passed(1, by="ada")
    await ledger.handle(accepted)
    await ledger.handle(accepted)
    assert roster.asked == 1
    with pytest.raises(InvalidEvent, match="lacks the role"):
        await ledger.handle(replace(desk.failed(1, by="eve"), id=accepted.id))
    champion = ledger.state("desk").champion
    assert champion is not None


async def test_a_command_of_somebody_without_the_role_is_refused_and_changes_nothing(desk: Any):
    log = MemoryLog()
    ledger = ledger_over(log, desk, require=Roster("eve", "olga").require)
    await ledger.handle(desk.passed(1))
    for by in (None, "eve"):
        command = desk.commanded(1, "rollback", by=by)
        await ledger.handle(command)
        refused = log.events[-1].data
        assert (refused.type, refused.command_id, refused.field) == (
            "command.refused",
            command.id,
            "principal",
        )
    assert ledger.state("desk").champion is not None
    await ledger.handle(desk.commanded(1, "rollback", by="olga"))
    assert ledger.state("desk").champion is None


@pytest.mark.parametrize("published", range(3))
async def test_a_command_is_completed_even_if_its_sender_lost_the_role(desk: Any, published: int):
    """Killed after so many events of a rejection, which has two; the key is revoked meanwhile."""
    log, roster = MemoryLog(), Roster("olga")
    ledger = ledger_over(log, desk, require=roster.require)
    await ledger.handle(desk.passed(1))
    command = desk.commanded(1, "reject", by="olga")
    log.kill_after = published
    with pytest.raises(Killed):
        await ledger.handle(command)
    roster.reviewers.clear()
    ledger = ledger_over(log, desk, require=roster.require)
    await ledger.handle(command)
    stage = ledger.state("desk").models[desk.model_id(1)].stage.value
    assert stage == ("rejected" if published else "production")
    roster.reviewers.add("olga")
    count = len(log.lifecycle)
    await ledger_over(log, desk, require=roster.require).handle(command)
    assert len(log.lifecycle) == count  # a refusal holds as well


async def test_a_command_on_a_project_that_nobody_declared_is_refused(desk: Any, make_desk: Any):
    log = MemoryLog()
    ledger = ledger_over(log, desk)
    for _ in range(2):
        await ledger.handle(make_desk(project="other").commanded(1, "promote"))
    (refused,) = log.events
    assert (refused.data.field, "not declared" in refused.data.reason) == ("project", True)
    assert not ledger.state("other").models


async def test_another_evaluation_is_asked_for_after_the_desired_state_that_eval_looks_at(make_desk: Any):
    log, desk = MemoryLog(), make_desk(canary=False)
    ledger = ledger_over(log, desk)
    for trigger in (desk.passed(1), desk.trained(2), desk.passed(2, against=0)):
        await ledger.handle(trigger)
    assert [event.data.type for event in log.events][-2:] == ["serving.desired", "eval.requested"]


async def test_a_rollback_and_a_return_are_read_in_their_order_whatever_topic_comes_first(desk: Any):
    """Rolled back in its second reign: told of it first, a reader would end the first one."""
    log = MemoryLog()
    ledger = ledger_over(log, desk)
    for trigger in (
        desk.passed(1), desk.passed(2), desk.judged(2, "canary", "passed"),
        desk.commanded(1, "promote"), desk.commanded(1, "rollback"),
    ):  # fmt: skip
        await ledger.handle(trigger)
    order = sorted(log.lifecycle, key=lambda event: event.data.type != "model.rolledback")
    assert ledger_over(log, desk, order).state("desk") == ledger.state("desk")
    assert ledger.state("desk").models[desk.model_id(1)].stage.value == "rolled_back"
