"""A judge over HTTP compares the pairs of answers of a trial."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.evaluation import ComparisonsRequested
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.label_prompts import LabelPrompts
from tunewheel_eval.judges.asking import Judges
from tunewheel_eval.judges.trials import compared
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.teachers import Teacher


def longer(asked: str) -> str:
    """Prefer the longer answer; say something else about one question."""
    first, second = (
        asked.partition(f"<<{name} answer")[2].partition("<<end")[0] for name in ("first", "second")
    )
    assert "expert" not in asked
    if "hums" in asked:
        return "I cannot say"
    better = "same" if len(first) == len(second) else "first" if len(first) > len(second) else "second"
    return json.dumps({"better": better})


@pytest.fixture
def judge() -> Iterator[Teacher]:
    teacher = Teacher()
    teacher.replies = [longer]
    yield teacher
    teacher.close()


async def stored(store: ObjectStore, path: str, *pairs: tuple[str, str, str | None]) -> None:
    items = [
        {
            "completion_id": f"{path}-{n}", "messages": [{"role": "user", "content": question}],
            "output": champion, "candidate": candidate,
        }
        for n, (question, champion, candidate) in enumerate(pairs)
    ]  # fmt: skip
    found = LabelPrompts.model_validate({"project": "desk", "request_id": "compare-1", "items": items})
    await store.replace(path, found.model_dump_json().encode())


def request(judge: JudgeSpec | None, *paths: str) -> ComparisonsRequested:
    return ComparisonsRequested(
        project="desk", request_id="compare-1", model_id="desk-2", against="desk-1", stage="shadow",
        revision=1, completion_ids=("1.json-0",), pairs=paths, judge=judge,
    )  # fmt: skip


async def say(store: ObjectStore, asked: ComparisonsRequested, allowed: str = "127.0.0.1") -> dict[str, str]:
    judges = Judges(store, AllowedSources(hosts=allowed))
    found = await compared(judges, store, asked, check=lambda: None)
    assert all(one.judge == (asked.judge and asked.judge.sha256) and one.reviewer is None for one in found)
    return {one.completion_id: one.preference for one in found}


async def test_a_judge_compares_all_pairs_that_can_be_read(judge: Teacher) -> None:
    store, spec = ObjectStore("memory://"), JudgeSpec(base_url=judge.url, model="m")
    await stored(
        store, "1.json", ("How?", "so", "so and so"), ("Why?", "because of it", "so"), ("Who?", "ann", "bob"),
        ("It hums", "so", "thus"), ("Erased", "", None),
    )  # fmt: skip
    told = {"1.json-0": "better", "1.json-1": "worse", "1.json-2": "same"}
    asked = request(spec, "1.json", "gone.json")
    assert await say(store, asked) == told
    await stored(store, "2.json", ("When?", "now", "tomorrow"))
    assert await say(store, request(spec, "1.json", "2.json")) == told | {"2.json-0": "better"}


async def test_without_a_judge_or_while_it_is_away_people_decide_alone(judge: Teacher) -> None:
    store = ObjectStore("memory://")
    await stored(store, "1.json", ("How?", "so", "so and so"))
    assert await say(store, request(None, "1.json")) == {}
    judge.close()
    assert await say(store, request(JudgeSpec(base_url=judge.url, model="m"), "1.json")) == {}


async def test_a_host_that_is_not_allowed_is_asked_nothing(judge: Teacher) -> None:
    asked = request(JudgeSpec(base_url=judge.url, model="m"), "1.json")
    with pytest.raises(InvalidEvent) as refused:
        await say(ObjectStore("memory://"), asked, "elsewhere.example")
    assert "judge" in (refused.value.field or "")
