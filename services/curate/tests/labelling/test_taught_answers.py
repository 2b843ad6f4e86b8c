"""A teacher, over HTTP, answers prompts of production: within its quota, in the task's form, marked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from aiokafka import TopicPartition
from openai import AsyncOpenAI
from structlog.testing import capture_logs
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.events.upstream import ExamplePublished, ProjectDeclared
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.drift_spec import LabelsSpec
from tunewheel_contracts.formats.label_prompts import LabelPrompt, LabelPrompts
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.labelling.requests import LabelsWanted, notice_of
from tunewheel_curate.labelling.taught_answers import TaughtAnswers
from tunewheel_curate.settings import Settings
from tunewheel_runtime.jobs import Lease, LeaseLost
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.teachers import Teacher

BELL = json.dumps({"category": "bell"})
HERE = AllowedSources(hosts="127.0.0.1")


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    one = Teacher()
    one.replies = [BELL]
    yield one
    one.close()


class Desk:
    """A store with prompts, the request to answer them, and what was published."""

    def __init__(self, base: ProjectSpec, teacher: Teacher) -> None:
        self.store = ObjectStore("memory://")
        self.published: list[ExamplePublished] = []
        self.lease = Lease(TopicPartition("labels.requested", 0))
        self._base, self._teacher = base, teacher

    def spec(
        self, *, quota: int = 10, model: str = "some/teacher", webhook: str | None = None
    ) -> ProjectSpec:
        told = self._base.model_dump(mode="json")
        teacher = {"base_url": self._teacher.url, "model": model}
        told["dataset"]["formats"]["documents"]["questions"]["teacher"] = teacher
        told["drift"]["labels"] = {"teacher_quota": quota, "webhook": webhook}
        return ProjectSpec.model_validate(told)

    async def ask(self, request_id: str = "alarm-1", *, prompts: int = 3, day: int = 1) -> Envelope[Any]:
        items = [
            LabelPrompt(
                completion_id=f"{request_id}.{n}",
                customer="C-1",
                messages=(
                    ChatMessage(role="user", content="hello"),
                    ChatMessage(role="assistant", content="yes?"),
                    ChatMessage(role="user", content=f"question {n}"),
                ),
            )
            for n in range(prompts)
        ]
        found = LabelPrompts(project="shop", request_id=request_id, items=(*items[:-1], items[-1].emptied()))
        await self.store.replace(f"{request_id}.json", found.model_dump_json().encode())
        asked = LabelsRequested(
            project="shop", request_id=request_id, alarm_id=request_id, dataset_id="ds-1", wanted=2,
            completion_ids=tuple(item.completion_id for item in items), prompts=f"{request_id}.json",
        )  # fmt: skip
        return new_event(asked, source="/test", time=datetime(2026, 1, day, tzinfo=UTC))

    async def publish(self, example: ExamplePublished, cause: Envelope[Any]) -> None:
        assert cause.data.type == "labels.requested"
        self.published.append(example)

    async def taught(self, event: Envelope[Any], spec: ProjectSpec, allowed: AllowedSources = HERE) -> int:
        return await TaughtAnswers(self.store, allowed, self.publish).answer(event, spec, self.lease)


@pytest.fixture
def desk(spec: Any, teacher: Teacher) -> Desk:
    return Desk(spec(), teacher)


async def test_answers_are_marked_and_validated_by_nobody(desk: Desk, teacher: Teacher) -> None:
    event = await desk.ask()
    assert await desk.taught(event, desk.spec()) == 2, "the third was erased"
    by_id = {one.example_id: one for one in desk.published}
    assert sorted(by_id) == ["alarm-1.0", "alarm-1.1"]
    one = by_id["alarm-1.0"]
    assert (one.input, one.output, one.group) == ("question 0", {"category": "bell"}, "C-1")
    assert [turn.content for turn in one.messages] == ["hello", "yes?"]
    assert (one.validated_by, one.validated_at) == (None, None)
    assert one.attributes == {"label_request": "alarm-1", "taught_by": "some/teacher"}
    assert one.authority == "unverified"
    assert "Answer as JSON." in teacher.asked[0]["messages"][0]["content"]
    assert '"enum":["bell","horn"]' in teacher.asked[0]["messages"][0]["content"]
    assert await desk.taught(event, desk.spec()) == 0, "redelivered, nothing is asked again"
    assert len(teacher.asked) == 2
    kept = [await desk.store.read(path) for path in await desk.store.list("teacher-answers")]
    assert kept == [b"", b""], "no text of a customer's is kept for it"


async def test_of_a_request_that_grew_only_the_new_prompts_are_asked(desk: Desk, teacher: Teacher) -> None:
    await desk.taught(await desk.ask(), desk.spec())
    more = await desk.ask("more", prompts=2)
    files = {"prompts": "alarm-1.json", "more_prompts": ("more.json",), "revision": 2}
    grown = (await desk.ask()).data.model_copy(update=files)
    next_month = new_event(grown, source="/test", time=datetime(2026, 2, 1, tzinfo=UTC))
    assert more.data.prompts == "more.json"
    assert await desk.taught(next_month, desk.spec()) == 1
    assert len(teacher.asked) == 3


async def test_a_months_quota_holds_over_requests(desk: Desk, teacher: Teacher) -> None:
    spec = desk.spec(quota=3)
    told = [await desk.taught(await desk.ask(f"alarm-{n}"), spec) for n in range(3)]
    assert (told, len(teacher.asked)) == ([2, 1, 0], 3)
    later = await desk.ask("alarm-9")
    later = new_event(later.data, source="/test", time=datetime(2026, 2, 1, tzinfo=UTC))
    assert await desk.taught(later, spec) == 2, "another month"


async def test_requests_at_once_share_the_quota_and_ask_about_a_prompt_once(
    desk: Desk, teacher: Teacher
) -> None:
    taught = TaughtAnswers(desk.store, HERE, desk.publish)
    events = [await desk.ask(f"alarm-{n}", prompts=4) for n in range(3)]
    same = events[0].data.model_copy(update={"request_id": "labels-9"})
    events.append(new_event(same, source="/test", time=events[0].time))
    spec = desk.spec(quota=7)
    assert sum(await asyncio.gather(*(taught.answer(event, spec, desk.lease) for event in events))) == 7
    assert len(teacher.asked) == 7
    assert len({one.example_id for one in desk.published}) == 7


async def test_what_could_not_be_published_is_asked_again(desk: Desk) -> None:
    async def away(*_: Any) -> None:
        assert len(await desk.store.list("teacher-answers")) == 1, "noted before"
        raise TransientError("the broker is away")

    event = await desk.ask(prompts=2)
    with pytest.raises(TransientError):
        await TaughtAnswers(desk.store, HERE, away).answer(event, desk.spec(), desk.lease)
    assert await desk.store.list("teacher-answers") == []
    assert await desk.taught(event, desk.spec()) == 1


async def test_an_answer_without_the_form_is_asked_for_once_more_and_then_left(
    desk: Desk, teacher: Teacher
) -> None:
    teacher.replies = ['{"category": "drum"}', f"```json\n{BELL}\n```"]
    assert await desk.taught(await desk.ask(prompts=2), desk.spec()) == 1
    said = teacher.asked[1]["messages"][-1]["content"]
    assert "output.category must be one of bell, horn" in said
    teacher.replies = ["no"]
    assert await desk.taught(await desk.ask("alarm-2", prompts=2), desk.spec()) == 0
    assert len(teacher.asked) == 4
    assert len(desk.published) == 1


@pytest.mark.parametrize(
    ("change", "allowed", "field"),
    [
        ({}, AllowedSources(), "base_url"),
        ({"model": "shop"}, HERE, "teacher.model"),
        ({"model": "shop/base"}, HERE, "teacher.model"),
        ({"model": "some/model"}, HERE, "teacher.model"),
    ],
)
async def test_neither_a_host_nobody_listed_nor_the_projects_own_model_is_asked(
    desk: Desk, teacher: Teacher, change: Any, allowed: AllowedSources, field: str
) -> None:
    with capture_logs() as logs:
        assert await desk.taught(await desk.ask(), desk.spec(**change), allowed) == 0
    assert logs[-1]["event"] == "teacher_not_asked"
    assert logs[-1]["field"].endswith(field)
    assert (teacher.asked, desk.published) == ([], [])


async def test_a_teacher_that_is_away_leaves_its_prompts_to_people_and_spends_no_quota(
    desk: Desk, teacher: Teacher
) -> None:
    teacher.replies = [404]
    event = await desk.ask(prompts=8)
    with capture_logs() as logs:
        assert await desk.taught(event, desk.spec()) == 0
    assert "teacher_unavailable" in [line["event"] for line in logs]
    assert await desk.store.list("teacher-answers") == []
    teacher.replies = [BELL]
    assert await desk.taught(event, desk.spec()) == 7


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("<html>sign in</html>", "text/html"),
        ("<html>sign in</html>", "application/json"),
        ("[]", "application/json"),
        ('{"choices": [{}]}', "application/json"),
        ('{"choices": [{"message": {"content": [1]}}]}', "application/json"),
    ],
)
async def test_a_teacher_that_answers_with_no_completion_is_away(
    desk: Desk, teacher: Teacher, body: str, kind: str
) -> None:
    def page(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=body, headers={"content-type": kind})

    def client(_: Any) -> AsyncOpenAI:
        http = httpx.AsyncClient(transport=httpx.MockTransport(page))
        return AsyncOpenAI(base_url=teacher.url, api_key="none", http_client=http)

    taught = TaughtAnswers(desk.store, HERE, desk.publish, open_client=client)
    with capture_logs() as logs:
        assert await taught.answer(await desk.ask(), desk.spec(), desk.lease) == 0
    assert "teacher_unavailable" in [line["event"] for line in logs]


async def test_without_quota_or_prompts_nobody_is_asked(desk: Desk, teacher: Teacher) -> None:
    event = await desk.ask()
    assert await desk.taught(event, desk.spec(quota=0)) == 0
    await desk.store.replace("alarm-1.json", b"[]")
    assert await desk.taught(event, desk.spec()) == 0
    await desk.store.delete(["alarm-1.json"])
    assert await desk.taught(event, desk.spec()) == 0
    assert teacher.asked == []


async def test_a_lost_lease_ends_it(desk: Desk) -> None:
    desk.lease.lose("the service is stopping")
    with pytest.raises(LeaseLost):
        await desk.taught(await desk.ask(), desk.spec())
    assert desk.published == []


class Projects:
    def __init__(self, spec: ProjectSpec | None) -> None:
        self._spec = spec

    async def fresh(self, _: str) -> Any:
        known = self._spec
        return known and new_event(ProjectDeclared(project="shop", spec=known), source="/test")


async def test_the_webhook_is_told_of_ids_and_counts_and_the_teacher_asked(desk: Desk) -> None:
    told: list[Any] = []
    taught = TaughtAnswers(desk.store, HERE, desk.publish)
    spec = desk.spec(webhook="https://hooks.example/")
    wanted = LabelsWanted(Projects(spec), taught, Settings(console_url="https://console/"))  # type: ignore[arg-type]

    async def tell(_: Lease, notice: Any, url: str) -> bool:
        told.append((url, json.loads(notice.body())))
        return True

    wanted._webhook.tell_under = tell  # type: ignore[method-assign]
    event = await desk.ask()
    await wanted.pass_on(event, desk.lease)
    ((url, body),) = told
    assert (url, body["type"], body["id"]) == ("https://hooks.example/", "labels.waiting", event.id)
    assert body["data"] == {
        "project": "shop", "request_id": "alarm-1", "alarm_id": "alarm-1", "wanted": 2, "prompts": 3,
        "minutes": 1.0, "dollars": 0.0, "assignees": [], "url": "https://console/projects/shop/labels/alarm-1",
    }  # fmt: skip
    assert len(desk.published) == 2
    smaller = event.data.model_copy(update={"revision": 2, "completion_ids": event.data.completion_ids[1:]})
    await wanted.pass_on(new_event(smaller, source="/test"), desk.lease)
    assert (len(told), len(desk.published)) == (1, 2), "an erasure asks nobody anything"
    await LabelsWanted(Projects(None), taught, Settings()).pass_on(event, desk.lease)  # type: ignore[arg-type]
    assert notice_of(event, LabelsSpec(), page=None).field == "drift.labels.webhook"


def test_a_quota_without_a_teacher_is_refused(spec: Any) -> None:
    told = spec().model_dump(mode="json") | {"drift": {"labels": {"teacher_quota": 5}}}
    with pytest.raises(ValueError, match="no teacher is named"):
        ProjectSpec.model_validate(told)
    assert "labels" not in spec().model_dump(mode="json")["drift"], "specs keep the hashes they had"
