"""What stands beside a question: similar questions, and the model's answer unless it would tell a side of a
comparison."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tunewheel_console.label_context import SIMILAR, nearest
from tunewheel_contracts.event import new_event
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.datasets import put_dataset

from .test_comparing import judged
from .test_labelling import REQUEST, SCHEMA, SOLAR, put

QUESTION = "My roof panel 0 hums."


@pytest.fixture
async def labels(console: Any, desk: Any, store: ObjectStore) -> Any:
    console.state.projects.clear()
    console.log.events = [desk.declared(output_schema=SCHEMA), await desk.stored_labels(store, prompts=3)]
    await console.refresh()
    return console


@pytest.fixture
async def ann(labels: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with labels.client("ann") as client:
        yield client


def row(name: str, question: str, answer: str, *, trust: str = "expert") -> dict[str, Any]:
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return {
        "example_id": name, "label": None, "group": "g", "trust": trust, "record_ids": [f"rec-{name}"],
        "messages": list(turns),
    }  # fmt: skip


def test_the_nearest_text_shares_the_rarer_words():
    texts = ("the cat sat on the mat", "the panel is on the roof", "a humming roof panel", "")
    found = nearest("My roof panel is humming", texts)
    assert found[0][0] == 2
    assert found[-1][1] == 0
    assert nearest("x", ["x"])[0][1] == pytest.approx(1)
    assert nearest("", []) == []


async def test_similar_questions_come_from_trained_expert_rows_and_from_this_queue(
    ann: Any, labels: Any, desk: Any, store: ObjectStore
):
    trained = [
        row("near", "Why does my roof panel hum?", "a loose screw"),
        row("guess", "Why does my roof panel hum at night?", "wind", trust="unverified"),
        row("far", "Where is my parcel?", "in Bonn"),
        *(row(f"r-{n}", f"My roof panel 0 hums, day {n + 5}", f"answer {n}") for n in range(3)),
    ]
    held_out = [row("held", QUESTION, "what models are judged by")]
    _, ref = await put_dataset(store, desk.spec(), dataset_id="ds-1", train=trained, holdout=held_out)
    versioned = desk.versioned()
    labels.state.apply(desk.event(versioned.data.model_copy(update={"manifest": ref})))
    await put(ann, 2, output=SOLAR)
    told = (await ann.get(f"{REQUEST}/items/1/context")).json()["similar"]
    fits = [one.pop("similarity") for one in told]
    assert fits == sorted(fits, reverse=True)
    (given,) = [one for one in told if one["from"] == "this queue"]
    assert given == {"question": "My roof panel 1 hums.", "answer": json.dumps(SOLAR), "from": "this queue"}
    answers = {one["answer"] for one in told if one["from"] == "the dataset"}
    assert answers == {"answer 0", "answer 1", "answer 2", "a loose screw"}
    await put(ann, 3, output=SOLAR)
    assert len((await ann.get(f"{REQUEST}/items/1/context")).json()["similar"]) == SIMILAR


async def test_an_answer_is_not_shown_beside_others_once_its_question_was_erased(
    ann: Any, store: ObjectStore
):
    await put(ann, 2, output=SOLAR)
    assert (await ann.get(f"{REQUEST}/items/1/context")).json()["similar"]
    whole = json.loads(await store.read("prompts.json") or b"")
    whole["items"][1] |= {"messages": [], "output": "", "customer": None}
    await store.replace("prompts.json", json.dumps(whole).encode())
    assert (await ann.get(f"{REQUEST}/items/1/context")).json()["similar"] == []


async def trial(desk: Any, store: ObjectStore, question: str, completion: str) -> Any:
    """Return the request to compare one pair of answers to ``question``."""
    asked = await desk.stored_pairs(store)
    kept = json.loads(await store.read("pairs.1.json") or b"")
    kept["items"] = [kept["items"][0] | {"completion_id": completion}]
    kept["items"][0]["messages"] = [{"role": "user", "content": question}]
    await store.replace("pairs.1.json", json.dumps(kept).encode())
    return desk.event(asked.data.model_copy(update={"completion_ids": (completion,)}))


@pytest.mark.parametrize(
    ("question", "completion", "is_hidden"),
    [
        ("another question", "cmpl-0", True),
        (QUESTION, "cmpl-77", True),
        ("my roof  panel 0 HUMS", "cmpl-77", True),
        ("another question", "cmpl-77", False),
    ],
)
async def test_the_models_answer_is_not_shown_while_people_compare_answers_to_the_question(
    ann: Any, labels: Any, desk: Any, store: ObjectStore, question: str, completion: str, is_hidden: bool
):
    labels.state.apply(await trial(desk, store, question, completion))
    told = (await ann.get(f"{REQUEST}/items/1")).json()
    assert (told["is_compared"], told["model_output"] == "", told["model_values"] == {}) == (is_hidden,) * 3
    labels.state.apply(new_event(judged(desk).data, source="/test"))
    told = (await ann.get(f"{REQUEST}/items/1")).json()
    assert (told["is_compared"], told["model_values"]) == (False, {"category": "battery"}), "it is over"


async def test_a_review_before_serving_and_pairs_that_cannot_be_read_hide_it_too(
    ann: Any, labels: Any, desk: Any, store: ObjectStore
):
    request = await desk.stored_review(store, items=4, reviewers=2)
    labels.state.apply(request)
    assert not (await ann.get(f"{REQUEST}/items/1")).json()["is_compared"]
    kept = json.loads(await store.read("reviews/rev-1.json") or b"")
    kept["items"][0]["messages"][0]["content"] = QUESTION
    await store.replace("reviews/rev-1.json", json.dumps(kept).encode())
    hidden = [(await ann.get(f"{REQUEST}/items/{n}")).json()["is_compared"] for n in (1, 2)]
    assert hidden == [True, False]
    await store.replace("reviews/rev-1.json", b"{")
    assert (await ann.get(f"{REQUEST}/items/2")).json()["model_output"] == ""
