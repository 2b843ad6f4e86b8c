from __future__ import annotations

import asyncio
import json
from collections import Counter
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.errors import InvalidSpec, TransientError
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.criteria import LOOKS
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.dataset_spec import ReplaySpec
from tunewheel_contracts.formats.look import Look, look_path
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_curate.builds.pinned_inputs import (
    NOT_HERE,
    choose_tokenizer,
    pin_inputs,
    pinned_replay,
    pinned_retired,
)
from tunewheel_curate.documents.examples import question_sections
from tunewheel_curate.examples.tokens import ModelTokens
from tunewheel_curate.holdout.memory import ComparedRecords, HoldoutMemory
from tunewheel_curate.replay.mixing import ReplayPool
from tunewheel_curate.replay.sources import read_replay
from tunewheel_runtime.store import CorruptArtifact, ObjectStore

TEACHER = {"base_url": "http://127.0.0.1:9/v1", "model": "some/teacher", "timeout_seconds": 1}
DESK = ProjectSpec.model_validate(
    {
        "project": "desk",
        "base_model": "some/model",
        "task": {"system_prompt": "Sort."},
        "criteria": [{"metric": "chrf", "minimum": 0.1}],
    }
)
take = partial(pin_inputs, allowed=AllowedSources(hosts="127.0.0.1"))
TEXT = "Press the reset button twice within 5 seconds and wait for the green light. Then open the door."


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore((tmp_path / "store").as_uri())


@pytest.fixture
def model(tokenizer, tmp_path: Path) -> Path:
    """A base model of which only the tokenizer is here."""
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def project(spec, base_model: str, **questions: Any) -> ProjectSpec:
    made = spec(formats={"documents": {"questions": questions}} if questions else {})
    return made.model_copy(update={"base_model": base_model})


async def test_a_tokenizer_is_pinned_for_the_build(store, spec, records, model: Path, tokenizer) -> None:
    own = project(spec, str(model))
    first = await take(store, "build-1", own, records())
    assert isinstance(first.tokens, ModelTokens)
    (model / "tokenizer.json").unlink()
    again = await take(store, "build-1", own, records())
    assert again.tokens.use == first.tokens.use
    assert again.tokens.sizes([TEXT]) == [len(tokenizer(TEXT).input_ids)]
    other = await take(store, "build-2", own, records())
    assert other.tokens.use.reason == NOT_HERE


async def test_an_estimate_is_pinned_for_the_build_too(
    store, spec, records, tokenizer, tmp_path: Path
) -> None:
    own = project(spec, str(tmp_path / "model"))
    first = await take(store, "build-1", own, records())
    assert (first.tokens.use.sha256, first.tokens.use.reason) == (None, NOT_HERE)
    tokenizer.save_pretrained(tmp_path / "model")
    assert (await take(store, "build-1", own, records())).tokens.use == first.tokens.use
    assert (await take(store, "build-2", own, records())).tokens.use.sha256 is not None


async def test_a_named_tokenizer_is_fetched_once(store, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(model))
    first = await choose_tokenizer(store, "some/model")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked again"))
    assert await choose_tokenizer(store, "some/model") == first
    assert first.sha256 is not None


async def test_an_absent_teacher_is_waited_for_or_done_without(store, spec, records, tmp_path: Path) -> None:
    document = records({"kind": "document", "output": None, "input": TEXT})
    asked = {"enabled": True, "method": "teacher", "teacher": TEACHER}
    waiting = project(spec, "/none", **asked, when_unavailable="wait")
    with pytest.raises(TransientError, match="answered for 0 of 1 sections"):
        await take(store, "build-1", waiting, document)
    without = await take(store, "build-2", project(spec, "/none", **asked), document)
    assert without.lessons == {}
    (noted,) = await store.list("teacher-sources")
    assert noted.rpartition("/")[2] in question_sections(document, waiting)
    assert without.teacher is not None
    assert (without.teacher.sections, without.teacher.answered) == (1, 0)


async def test_lessons_learnt_later_do_not_change_a_build(store, spec, records) -> None:
    document = records({"kind": "document", "output": None, "input": TEXT})
    own = project(spec, "/none", enabled=True, method="teacher", teacher=TEACHER)
    await take(store, "build-1", own, document)
    (key,) = question_sections(document, own)
    await store.put(f"teacher/{key}.json", b'{"pairs":[]}')
    assert (await take(store, "build-1", own, document)).lessons == {}
    assert set((await take(store, "build-2", own, document)).lessons) == {key}


async def test_a_teacher_that_is_not_allowed_is_not_asked(store, spec, records) -> None:
    document = records({"kind": "document", "output": None, "input": TEXT})
    own = project(spec, "/none", enabled=True, method="teacher", teacher=TEACHER)
    with pytest.raises(InvalidSpec, match=r"teacher\.base_url: 127\.0\.0\.1 is not a host"):
        await pin_inputs(store, "build-1", own, document, allowed=AllowedSources())
    assert await store.list("") == []
    pinned = await take(store, "build-1", own, document)
    again = await pin_inputs(store, "build-1", own, document, allowed=AllowedSources())
    assert again.lessons == pinned.lessons, "what is pinned needs nobody"


HERE = AllowedSources(folders=("/",))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "general.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"Question {n}", "response": "x"}) for n in range(3)))
    return path


async def test_a_build_repeated_takes_what_its_first_attempt_took(source: Path, store: ObjectStore) -> None:
    spec = ReplaySpec(source=str(source))
    first = await pinned_replay(store, "build-1", spec, HERE)
    assert len(first.conversations) == 3
    source.write_text(json.dumps({"prompt": "Something else", "response": "x"}))
    assert await pinned_replay(store, "build-1", spec, HERE) == first
    assert (await pinned_replay(store, "build-2", spec, HERE)).sha256 != first.sha256
    source.unlink()
    assert await pinned_replay(store, "build-1", spec, HERE) == first
    with pytest.raises(InvalidSpec, match="cannot be read"):
        await pinned_replay(store, "build-3", spec, HERE)


async def test_what_was_kept_and_is_gone_is_told(source: Path, store: ObjectStore) -> None:
    pool = await pinned_replay(store, "build-1", ReplaySpec(source=str(source)), HERE)
    await store.delete([f"replay/{pool.sha256}.jsonl"])
    with pytest.raises(CorruptArtifact, match="bring it back"):
        await pinned_replay(store, "build-1", ReplaySpec(source=str(source)), HERE)


async def test_of_two_attempts_at_once_the_first_to_pin_decides(
    source: Path, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, reading = ReplaySpec(source=str(source)), "tunewheel_curate.builds.pinned_inputs.read_replay"
    quicker: list[ReplayPool] = []

    def overtaken(*_: object) -> ReplayPool:
        monkeypatch.setattr(reading, read_replay)
        quicker.append(asyncio.run(pinned_replay(store, "build-1", spec, HERE)))
        source.write_text(json.dumps({"prompt": "Something else", "response": "x"}))
        return read_replay(spec, HERE)

    monkeypatch.setattr(reading, overtaken)
    assert [await pinned_replay(store, "build-1", spec, HERE)] == quicker
    assert len(quicker[0].conversations) == 3


def held_out(*numbers: int, group: str = "") -> list[ChatExample]:
    return [
        ChatExample.model_validate(
            {
                "example_id": f"ex-{number}",
                "messages": [
                    {"role": "system", "content": "Sort."},
                    {"role": "user", "content": f"Question {number}?"},
                    {"role": "assistant", "content": "bell"},
                ],
                "group": group or f"group-{number}",
                "trust": "expert",
                "record_ids": [f"rec-{number}"],
            }
        )
        for number in numbers
    ]


async def hold_out(store: ObjectStore, dataset_id: str, rows: list[ChatExample]) -> None:
    pl.DataFrame([row.model_dump(mode="json") for row in rows]).write_parquet(data := BytesIO())
    await store.put(f"datasets/{dataset_id}/holdout.parquet", data.getvalue())


async def look(store: ObjectStore, number: int, rows: list[ChatExample], **facts: Any) -> None:
    name = f"scorecard-{number}"
    plain = {"project": "desk", "rows": [one.record_ids[0] for one in rows], "looks": 1}
    data = Look.model_validate({"scorecard_id": name, **plain, **facts})
    await store.put(look_path(data.project, name), data.model_dump_json().encode())


async def retired(store: ObjectStore, build_id: str, previous: str, looks: int = LOOKS) -> list[str]:
    spec = ProjectSpec.model_validate({**DESK.model_dump(), "evaluation": {"looks": looks}})
    _, rows = await pinned_retired(store, build_id, spec, previous=previous)
    return [one.record_ids[0] for one in rows]


async def test_each_verdict_lets_the_next_build_retire_a_tenth_and_every_attempt_says_the_same(
    store: ObjectStore,
) -> None:
    rows = held_out(*range(20))
    await hold_out(store, "ds-1", rows)
    assert await retired(store, "build-0", "ds-1") == []
    await look(store, 0, rows[:10])
    await look(store, 1, rows)
    await look(store, 2, rows, project="other")
    await store.put(look_path("desk", "scorecard-damaged"), b"{")
    first = await retired(store, "build-1", "ds-1")
    assert len(first) == 4
    assert set(first) < {one.record_ids[0] for one in rows[:10]}, "the most used rows leave first"
    assert first != [one.record_ids[0] for one in rows[:4]], "by no order that a source knows"
    # no later look changes what a build took, and no look counts for two builds
    await look(store, 3, rows)
    assert await retired(store, "build-1", "ds-1") == first
    left = [one for one in rows if one.record_ids[0] not in first]
    await hold_out(store, "ds-2", [*left, *held_out(20, 21, 22, 23)])
    assert len(await retired(store, "build-2", "ds-2")) == 1
    assert await retired(store, "build-3", "ds-2") == await retired(store, "build-2", "ds-2")


async def test_in_the_long_run_a_row_serves_ten_verdicts(store: ObjectStore) -> None:
    rows, served, new = held_out(*range(30)), Counter[str](), 30
    for turn in range(40):
        await hold_out(store, f"ds-{turn}", rows)
        await look(store, turn, rows)
        served.update(one.record_ids[0] for one in rows)
        gone = set(await retired(store, f"build-{turn}", f"ds-{turn}"))
        assert len(gone) == 3
        rows = [*(one for one in rows if one.record_ids[0] not in gone), *held_out(*range(new, new + 3))]
        new += 3
    assert max(served.values()) == LOOKS
    assert {served[f"rec-{number}"] for number in range(30, 100)} == {LOOKS}


@pytest.mark.parametrize(("rows", "looks", "after"), [(3, 10, 4), (1, 10, 10), (3, 2, 1), (40, 100, 3)])
async def test_verdicts_that_allow_less_than_a_row_are_left_to_a_later_build(
    store: ObjectStore, rows: int, looks: int, after: int
) -> None:
    few = held_out(*range(rows))
    await hold_out(store, "ds-1", few)
    for turn in range(after):
        assert await retired(store, f"build-{turn}", "ds-1", looks) == []
        await look(store, turn, few, of=looks)
    assert len(await retired(store, "build-last", "ds-1", looks)) == 1


async def test_what_has_spent_all_is_retired_also_by_looks_of_an_earlier_release(store: ObjectStore) -> None:
    rows = [*held_out(0, 1, 2, group="group-a"), *held_out(*range(3, 20))]
    await hold_out(store, "ds-1", rows)
    for number in range(LOOKS):
        await look(store, number, [], groups=["group-a", *(["group-3"] if number else [])])
    assert sorted(await retired(store, "build-1", "ds-1")) == ["rec-0", "rec-1", "rec-2"]


async def test_a_build_of_an_earlier_release_retires_the_groups_that_it_pinned(store: ObjectStore) -> None:
    await store.put("builds/build-1/retired.json", b'["group-a"]')
    assert await pinned_retired(store, "build-1", DESK, previous=None) == (("group-a",), [])


@pytest.mark.parametrize("secret", ["", "a secret"])
def test_the_memory_keeps_who_is_retired(secret: str) -> None:
    names = Pseudonyms("desk", secret)
    memory = HoldoutMemory(names=names).retiring(["group-a"], held_out(1))
    memory.to_frame().write_parquet(data := BytesIO())
    again = HoldoutMemory.read(data.getvalue(), names)
    assert again.retired("group-a")
    assert not again.retired("group-b")
    records = pl.DataFrame(
        {"record_id": ["a", "b"], "kind": "ticket", "source_id": ["1", "2"], "group": "g"}
    ).with_columns(key=pl.Series(["question 1?", "question 2?"]))
    assert [again.rests(one) for one in ComparedRecords(records).marks([["a"], ["b"]])] == [True, False]
