"""A real client against a real endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.formats.example_formats import QuestionFormat
from tunewheel_curate.documents.teaching import (
    Lesson,
    ask_teacher,
    lesson_path,
    read_lessons,
    section_key,
)
from tunewheel_retrieval.sections import Section
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.teachers import PAIRS, Teacher


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    one = Teacher()
    yield one
    one.close()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore((tmp_path / "store").as_uri())


def questions(teacher: Teacher, **changes: Any) -> QuestionFormat:
    spec = {"base_url": teacher.url, "model": "some/teacher"} | changes
    return QuestionFormat.model_validate({"enabled": True, "method": "teacher", "teacher": spec})


def sections(asked: QuestionFormat, *texts: str) -> dict[str, Section]:
    made = [Section("r", "g", "Lockers", ("Reset",), (DocumentSection(text=text),)) for text in texts]
    return {section_key(section, asked): section for section in made}


async def test_a_section_is_asked_about_once(teacher: Teacher, store: ObjectStore) -> None:
    asked = questions(teacher)
    wanted = sections(asked, "Press the button twice.")
    first = await ask_teacher(store, wanted, asked)
    teacher.replies = [json.dumps({"pairs": []})]
    assert await ask_teacher(store, wanted, asked) == first
    assert await read_lessons(store, list(wanted)) == first
    assert [pair.answer for lesson in first.values() for pair in lesson.pairs] == ["Press the button twice."]
    (request,) = teacher.asked
    assert (request["temperature"], request["response_format"]) == (0, {"type": "json_object"})
    assert "Press the button twice." in request["messages"][-1]["content"]


async def test_of_two_that_ask_at_once_the_first_answer_stands(teacher: Teacher, store: ObjectStore) -> None:
    asked = questions(teacher)
    wanted = sections(asked, "Press the button twice.")
    (key,) = wanted
    other = Lesson.model_validate({"pairs": [{"question": "Is it reset?", "answer": "Press it twice."}]})

    def overtaken(_: str) -> str:
        asyncio.run(store.put(lesson_path(key), other.model_dump_json().encode()))
        return json.dumps(PAIRS)

    teacher.replies = [overtaken]
    assert await ask_teacher(store, wanted, asked) == {key: other}
    assert await read_lessons(store, [key]) == {key: other}


async def test_another_text_model_or_count_is_another_question(teacher: Teacher) -> None:
    asked = questions(teacher)
    others = [
        sections(asked, "Press it once."),
        sections(questions(teacher, model="other/teacher"), "Press it."),
        sections(asked.model_copy(update={"per_section": 3}), "Press it."),
    ]
    (key,) = sections(asked, "Press it.")
    assert all(key not in other for other in others)
    # Where the teacher runs, and how long it may take, is no part of what it is asked.
    assert key in sections(questions(teacher, base_url="http://elsewhere/v1", timeout_seconds=5), "Press it.")


@pytest.mark.parametrize(
    "replies",
    [
        [f"```json\n{json.dumps(PAIRS)}\n```"],
        ["Sure!", json.dumps(PAIRS)],
        [json.dumps({"pairs": [{"question": "How?"}]}), json.dumps(PAIRS)],
        [400, json.dumps(PAIRS)],
        [429, 503, json.dumps(PAIRS)],
    ],
)
async def test_what_can_be_mended_is_mended(teacher: Teacher, store: ObjectStore, replies: list[Any]) -> None:
    teacher.replies = replies
    asked = questions(teacher)
    (lesson,) = (await ask_teacher(store, sections(asked, "Press it."), asked)).values()
    assert len(lesson.pairs) == 1


async def test_a_teacher_that_never_answers_readably_is_not_asked_again(
    teacher: Teacher, store: ObjectStore
) -> None:
    teacher.replies = ["I'd rather not."]
    asked = questions(teacher)
    wanted = sections(asked, "Press it.")
    assert list((await ask_teacher(store, wanted, asked)).values()) == [Lesson()]
    count = len(teacher.asked)
    await ask_teacher(store, wanted, asked)
    assert len(teacher.asked) == count == 2


async def test_a_teacher_that_is_away_is_given_up_and_asked_later(
    teacher: Teacher, store: ObjectStore
) -> None:
    teacher.replies = [401]
    asked = questions(teacher)
    wanted = sections(asked, *(f"Press it {n} times." for n in range(20)))
    assert await ask_teacher(store, wanted, asked) == {}
    assert len(teacher.asked) < len(wanted)
    teacher.replies = [json.dumps(PAIRS)]
    assert set(await ask_teacher(store, wanted, asked)) == set(wanted)


async def test_nobody_listening_is_no_error(teacher: Teacher, store: ObjectStore) -> None:
    asked = questions(teacher, base_url="http://127.0.0.1:9/v1", timeout_seconds=1)
    assert await ask_teacher(store, sections(asked, "Press it."), asked) == {}


async def test_the_key_comes_from_the_environment(
    teacher: Teacher, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWHEEL_TEACHER_KEY", "secret")
    asked = questions(teacher, api_key_env="TUNEWHEEL_TEACHER_KEY")
    await ask_teacher(store, sections(asked, "Press it."), asked)
    assert teacher.keys == ["Bearer secret"]


async def test_of_two_replicas_the_first_answer_stands(teacher: Teacher, store: ObjectStore) -> None:
    asked = questions(teacher)
    wanted = sections(asked, "Press it.")
    (key,) = wanted
    await store.put(f"teacher/{key}.json", b'{"pairs":[]}')
    assert await ask_teacher(store, wanted, asked) == {key: Lesson()}
    assert teacher.asked == []
