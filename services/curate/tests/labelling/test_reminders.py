"""People are reminded once a week of alarms that wait for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import TopicPartition
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.turns import AlarmAnswer, TurnDecided
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.labelling.reminders import Reminders
from tunewheel_curate.settings import Settings
from tunewheel_runtime.jobs import Lease, LeaseLost
from tunewheel_runtime.store import ObjectStore

HOOK = "https://hooks.example/"


class Hook:
    """A process that sends reminders, and the notices that the process sent."""

    def __init__(self, spec: ProjectSpec, store: ObjectStore) -> None:
        self.spec, self.store = spec, store
        self.sent: list[dict[str, Any]] = []
        self.is_away = False
        self.lease = Lease(TopicPartition("turn.decided", 0))
        self._reminders = Reminders(self, store, Settings(console_url="https://console/"))  # type: ignore[arg-type]
        self._reminders._webhook.tell_under = self._tell  # type: ignore[method-assign]

    async def fresh(self, _: str) -> Any:
        return new_event(ProjectDeclared(project="shop", spec=self.spec), source="/test")

    async def _tell(self, lease: Lease, notice: Any, url: str) -> bool:
        lease.check()
        if not self.is_away:
            self.sent.append(json.loads(notice.body())["data"] | {"to": url})
        return not self.is_away

    async def hears(self, reminder: int, waits_for: str | None = "annotators", labels: int = 0) -> None:
        alarm = AlarmAnswer(
            alarm_id="alarm-1",
            detector="novelty",
            follows="collect_labels",
            labels=labels,
            waits_for=waits_for,
        )
        decided = TurnDecided(
            project="shop",
            step="waits for labels",
            alarms=(alarm,),
            alarm_ids=("alarm-1",),
            reminder=reminder,
        )
        await self._reminders.pass_on(new_event(decided, source="/test"), self.lease)


@pytest.fixture
def hook(spec: Callable[..., ProjectSpec]) -> Callable[..., Hook]:
    store = ObjectStore("memory://")

    def make(webhook: str | None = HOOK) -> Hook:
        told = spec().model_dump(mode="json") | {"drift": {"labels": {"webhook": webhook}}}
        return Hook(ProjectSpec.model_validate(told), store)

    return make


async def test_each_week_gives_one_reminder_whatever_is_decided_and_restarted_meanwhile(
    hook: Callable[..., Hook],
) -> None:
    first, second = hook(), hook()
    for reminder, labels in ((0, 0), (1, 0), (1, 3)):
        await first.hears(reminder, labels=labels)
    for reminder in (1, 2):
        await second.hears(reminder)
    assert [one["reminder"] for one in (*first.sent, *second.sent)] == [1, 2]
    assert first.sent[0] == {
        "project": "shop", "alarm_ids": ["alarm-1"], "waits_for": ["annotators"], "step": "waits for labels",
        "reminder": 1, "url": "https://console/", "to": HOOK,
    }  # fmt: skip


async def test_marks_of_earlier_weeks_and_alarms_are_deleted(hook: Callable[..., Hook]) -> None:
    desk = hook()
    await desk.store.put("reminders/shop/alarm-0.9", b"")
    await desk.store.put("reminders/shoes/alarm-0.9", b"")
    for reminder in (1, 2, 3, 4, 3, 4):
        await desk.hears(reminder)
    assert [one["reminder"] for one in desk.sent] == [1, 2, 3, 4]
    assert await desk.store.list("reminders/shop") == [f"reminders/shop/alarm-1.{week}" for week in (3, 4)]
    assert await desk.store.list("reminders/shoes") == ["reminders/shoes/alarm-0.9"]


@pytest.mark.parametrize("waits_for", ["train", "clock", None])
async def test_nobody_is_reminded_of_what_no_person_ends(
    hook: Callable[..., Hook], waits_for: str | None
) -> None:
    one = hook()
    await one.hears(1, waits_for)
    assert one.sent == []


async def test_a_project_without_a_webhook_is_not_reminded(hook: Callable[..., Hook]) -> None:
    one = hook(None)
    await one.hears(1)
    assert one.sent == []


async def test_a_reminder_that_was_not_sent_is_sent_by_the_next_owner(hook: Callable[..., Hook]) -> None:
    first, second = hook(), hook()
    first.lease.lose("the service is stopping")
    with pytest.raises(LeaseLost):
        await first.hears(1)
    await second.hears(1)
    assert [one["reminder"] for one in second.sent] == [1]


async def test_a_reminder_that_the_webhook_did_not_take_is_sent_with_the_weeks_next_decision(
    hook: Callable[..., Hook],
) -> None:
    one = hook()
    one.is_away = True
    await one.hears(1)
    one.is_away = False
    for labels in (1, 2):
        await one.hears(1, labels=labels)
    assert [sent["reminder"] for sent in one.sent] == [1]
