"""The texts behind an alarm: read where they lie, redacted, emptied by an erasure."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.turns import CompletionsChosen
from tunewheel_contracts.formats.label_prompts import request_for, request_of
from tunewheel_monitor.evidence import Exhibits, keywords
from tunewheel_runtime.store import ObjectStore

from .conftest import START, spec_of

ALARM = "alarm-0123456789ab"
MAIL = "Write to ann@example.com about my bike"


async def kept(desk: Any, *deliveries: Any, **spec: Any) -> dict[str, Any]:
    places = []
    for delivery in deliveries:
        position = delivery.position
        desk.broker.traffic[position.topic, position.partition, position.offset] = delivery.event
        of = "completion" if position.topic == topics.INFERENCE_COMPLETED.name else "rating"
        places.append((delivery.event.data.completion_id, (of, position.partition, position.offset)))
    keep, refresh = desk.watch.exhibits.keep, desk.knowledge.refresh
    found = await keep(spec_of(**spec), ALARM, places, words={}, refresh=refresh)
    return json.loads(desk.files()[found.path]) if found.path else {}


async def erase(exhibits: Exhibits, customer: str) -> frozenset[str]:
    taken = await exhibits.taken("desk", Erasure(project="desk", customer=customer, until=START))
    for path, names in taken.items():
        await exhibits.empty(path, names)
    return frozenset[str]().union(*taken.values())


async def test_texts_are_kept_redacted_in_the_order_of_the_alarm(desk: Any) -> None:
    rated = desk.traffic.rating("c-9", "down", messages=({"role": "user", "content": "Why?"},), output="So.")
    told = await kept(desk, desk.traffic.completion(MAIL, customer="Ann"), rated)
    assert (told["project"], told["request_id"]) == ("desk", "labels-0123456789ab")
    first, second = told["items"]
    assert first["messages"][0]["content"] == "Write to <EMAIL_ADDRESS> about my bike"
    assert (first["completion_id"], first["customer"]) == ("c-00001", "Ann")
    assert (second["completion_id"], second["output"]) == ("c-9", "So.")


async def test_a_project_that_keeps_personal_data_keeps_it_here_too(desk: Any) -> None:
    told = await kept(desk, desk.traffic.completion(MAIL), dataset={"pii": {"action": "keep"}})
    assert told["items"][0]["messages"][0]["content"] == MAIL


@pytest.mark.parametrize("texts", ["hashed", "off"])
async def test_where_texts_are_not_logged_there_is_no_evidence(desk: Any, texts: str) -> None:
    assert await kept(desk, desk.traffic.completion("text-1", texts=texts)) == {}


async def test_what_the_log_no_longer_has_is_absent(desk: Any) -> None:
    gone = [("c-1", ("completion", 0, 5))]
    keep, refresh = desk.watch.exhibits.keep, desk.knowledge.refresh
    found = await keep(spec_of(), ALARM, gone, words={}, refresh=refresh)
    assert found.path is None
    assert desk.files() == {}


async def test_an_erasure_empties_what_it_takes(desk: Any) -> None:
    await kept(desk, *(desk.traffic.completion(f"{n} bikes", customer=f"C-{n % 2}") for n in range(5)))
    assert await erase(desk.watch.exhibits, "C-1") == {"c-00001", "c-00003"}
    (text,) = desk.files().values()
    assert [len(item["messages"]) for item in json.loads(text)["items"]] == [1, 0, 1, 0, 1]
    assert "C-1" not in text
    assert await erase(desk.watch.exhibits, "C-1") == frozenset()


class Held(ObjectStore):
    """A store whose first rewriting waits until ``go``; it is then about to undo what came meanwhile."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.asked, self.go = asyncio.Event(), asyncio.Event()

    async def replace(self, path: str, data: bytes) -> None:
        self.asked.set()
        await self.go.wait()
        await super().replace(path, data)


async def test_two_processes_that_empty_one_file_at_once_lose_neither_erasure(desk: Any) -> None:
    await kept(desk, *(desk.traffic.completion(f"{n} bikes", customer=f"C-{n}") for n in range(3)))
    store = Held(desk.store.url)
    slow = asyncio.create_task(erase(Exhibits(store, desk.broker.read, desk.knowledge.erasures), "C-0"))
    await store.asked.wait()
    await erase(desk.watch.exhibits, "C-1")
    store.go.set()
    await slow
    (text,) = desk.files().values()
    assert [item["customer"] for item in json.loads(text)["items"]] == [None, None, "C-2"]


async def test_texts_that_a_killed_process_brought_back_go_with_the_next_erasure(desk: Any) -> None:
    await kept(desk, *(desk.traffic.completion(f"{n} bikes", customer=f"C-{n}") for n in range(3)))
    await erase(desk.watch.exhibits, "C-0")
    ((path, before),) = desk.files().items()
    await erase(desk.watch.exhibits, "C-1")
    await desk.store.replace(path, before.encode())
    assert await erase(desk.watch.exhibits, "C-0") == frozenset(), "it took everything before"
    (text,) = desk.files().values()
    assert [item["customer"] for item in json.loads(text)["items"]] == [None, None, "C-2"]


def test_keywords_are_words_of_many_texts_that_the_reference_seldom_has() -> None:
    texts = [f"may my lost card number {n} be replaced by Smith{n}" for n in range(10)] + ["Ann asks", ""]
    assert keywords(texts, {"may": 1.0, "number": 0.3}) == ("card", "lost", "replaced", "number")
    assert keywords([], {}) == ()


def chosen(desk: Any, *deliveries: Any) -> CompletionsChosen:
    """Put completions on the log, and return a person's choice of them."""
    places = []
    for delivery in deliveries:
        position = delivery.position
        desk.broker.traffic[position.topic, position.partition, position.offset] = delivery.event
        name = delivery.event.data.completion_id
        places.append({"completion_id": name, "partition": position.partition, "offset": position.offset})
    request_id = request_for(place["completion_id"] for place in places)
    return CompletionsChosen(
        project="desk", request_id=request_id, completions=places, principal={"name": "ann"}
    )


async def test_completions_that_a_person_chose_become_a_request_without_personal_data(desk: Any) -> None:
    desk.declare()
    asked = chosen(desk, *desk.ask([MAIL, "Why is it blue?"], customer="Kim"))
    for _ in range(2):  # delivered again
        request = await desk.watch.questions.choose(asked)
        assert (request.asked_by, request.wanted, request.dataset_id) == ("ann", 2, "none")
        assert request.completion_ids == tuple(one.completion_id for one in asked.completions)
        assert request.prompts == f"monitor/desk/alarms/{request.alarm_id}.json"
        assert request.request_id == asked.request_id == request_of(request.alarm_id)
    items = json.loads(desk.files()[request.prompts])["items"]
    assert items[0]["messages"][0]["content"] == "Write to <EMAIL_ADDRESS> about my bike"
    names = frozenset(one.completion_id for one in asked.completions)
    assert await erase(desk.watch.exhibits, "Kim") == names, "an erasure finds them as it finds an alarm's"
    assert "blue" not in desk.files()[request.prompts]


ENDPOINT = {"endpoint": {"base_url": "https://models.example/v1", "model": "large-1"}}


async def doubted(desk: Any, to: str, **fields: Any) -> list[Any]:
    """Return the requests for labels that one completion gives, delivered twice."""
    desk.declare(
        task={"system_prompt": "Answer.", "label_field": "category"},
        serving={"abstain": {"risk": 0.05, "to": to} | (ENDPOINT if to == "endpoint" else {})},
    )
    told = {"overrides": ("abstained",), "certainty": 0.4, "output": "", "customer": "Kim"} | fields
    delivery = desk.traffic.completion(MAIL, **told)
    chosen(desk, delivery)  # it is on the log
    twice = [await desk.watch.questions.withheld([delivery]) for _ in range(2)]
    assert [one.id for one in twice[0]] == [one.id for one in twice[1]]
    return [(one.data, delivery.event) for one in twice[0]]


@pytest.mark.parametrize("to", ["label", "endpoint"])
async def test_a_question_whose_answer_was_withheld_becomes_a_request_for_a_label(desk: Any, to: str) -> None:
    ((request, completion),) = await doubted(desk, to)
    name = completion.data.completion_id
    assert (request.completion_ids, request.wanted) == ((name,), 1)
    assert request.asked_by == completion.data.model_id
    (item,) = json.loads(desk.files()[request.prompts])["items"]
    assert item["messages"][0]["content"] == "Write to <EMAIL_ADDRESS> about my bike"
    assert item["output"] == ""
    assert await erase(desk.watch.exhibits, "Kim") == {name}


@pytest.mark.parametrize(
    ("to", "fields"),
    [
        ("people", {}),
        ("label", {"overrides": ()}),
        ("endpoint", {"answered_by": "chatcmpl-1"}),
        (
            "endpoint",
            {"overrides": ("fallback",), "certainty": None, "model_id": "large-1", "output": "bell"},
        ),
        ("label", {"certainty": None}),
        ("label", {"texts": "hashed"}),
    ],
)
async def test_other_questions_ask_nobody(desk: Any, to: str, fields: dict[str, Any]) -> None:
    assert await doubted(desk, to, **fields) == []
    assert not desk.files()


async def test_people_are_asked_once_a_day_for_the_label_of_a_question_and_for_few_in_all(desk: Any) -> None:
    (first,) = await doubted(desk, "label")
    desk.watch.questions.doubts.most = 2
    told: Any = {"overrides": ("abstained",), "certainty": 0.4, "output": ""}
    later = first[1].data.completed_at + timedelta(days=1)
    asked = []
    for text, fields in [
        ("write to  ANN@example.com about my bike\n", {}),  # the same in other spelling, by somebody else
        ("Where is my lock?", {}),
        ("Is the saddle loose?", {}),  # one too many
        ("Is the saddle loose?", {"completed_at": later}),
        (MAIL, {"completed_at": later}),
    ]:
        delivery = desk.traffic.completion(text, **told | fields)
        chosen(desk, delivery)  # it is on the log
        requests = [await desk.watch.questions.withheld([delivery]) for _ in range(2)]
        assert [one.id for one in requests[0]] == [one.id for one in requests[1]]
        asked.append(len(requests[0]))
    assert asked == [0, 1, 0, 1, 1]


@pytest.mark.parametrize("name", ["Kowalski", "Zoë"])
async def test_a_name_in_all_chosen_texts_is_not_on_the_log(desk: Any, name: str) -> None:
    desk.declare()
    asked = chosen(desk, *desk.ask([f"{name} asks {n}" for n in range(4)], customer="Kim"))
    request = await desk.watch.questions.choose(asked)
    assert name.lower() not in request.model_dump_json().lower()


async def test_a_choice_of_what_cannot_be_read_is_refused_by_its_field(desk: Any) -> None:
    desk.declare()
    for asked, field in (
        (chosen(desk, desk.traffic.completion("text-1", texts="hashed")), "completions"),
        (chosen(desk, desk.traffic.completion("theirs", project="shop")), "completions"),
        (chosen(desk, desk.traffic.completion("t")).model_copy(update={"project": "shop"}), "project"),
    ):
        with pytest.raises(InvalidEvent) as refused:
            await desk.watch.questions.choose(asked)
        assert refused.value.field == field
