from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidSpec, TransientError
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.builds.outside import NOT_HERE, choose_tokenizer, take_from_outside
from tunewheel_curate.documents.examples import question_sections
from tunewheel_curate.examples.tokens import ModelTokens
from tunewheel_runtime.store import ObjectStore

TEACHER = {"base_url": "http://127.0.0.1:9/v1", "model": "some/teacher", "timeout_seconds": 1}
take = partial(take_from_outside, allowed=AllowedSources(hosts="127.0.0.1"))
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
        await take_from_outside(store, "build-1", own, document, allowed=AllowedSources())
    assert await store.list("") == []
    pinned = await take(store, "build-1", own, document)
    again = await take_from_outside(store, "build-1", own, document, allowed=AllowedSources())
    assert again.lessons == pinned.lessons, "what is pinned needs nobody"
