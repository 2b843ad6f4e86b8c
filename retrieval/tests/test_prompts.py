from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_retrieval.building import build
from tunewheel_retrieval.index import BrokenIndex
from tunewheel_retrieval.opening import files_of, is_deleted, open_index
from tunewheel_retrieval.prompts import LONGEST_QUESTION, question_of, with_context

from retrieval.tests.conftest import Counting, document, stored

SPEC = RetrievalSpec(top_k=3, passage_tokens=16, budget_tokens=25)
SYSTEM, ASKED = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "And now?"}


@pytest.mark.parametrize(
    ("messages", "question"),
    [
        ([SYSTEM, {"role": "user", "content": "Hello"}, ASKED], "And now?"),
        ([SYSTEM], ""),
        ([{"role": "user", "content": None}], ""),
        ([{"role": "user", "content": "x" * (LONGEST_QUESTION + 1)}], "x" * LONGEST_QUESTION),
    ],
)  # fmt: skip
def test_the_last_question_is_what_is_searched_for(messages: list[dict[str, Any]], question: str) -> None:
    assert question_of(messages) == question


@pytest.mark.parametrize(
    ("messages", "first"),
    [
        ([SYSTEM, ASKED], {"role": "system", "content": "Be brief.\n\nPASSAGES"}),
        ([ASKED], {"role": "system", "content": "PASSAGES"}),
        ([{"role": "system", "content": ""}, ASKED], {"role": "system", "content": "PASSAGES"}),
    ],
)
def test_passages_stand_at_the_end_of_the_system_message(
    messages: list[dict[str, Any]], first: dict[str, Any]
) -> None:
    before = [dict(message) for message in messages]
    assert with_context(messages, "PASSAGES") == [first, ASKED]
    assert messages == before
    assert with_context(messages, "") == before


class Files:
    """What an object store has of ``by_path``."""

    def __init__(self, by_path: dict[str, bytes]) -> None:
        self.by_path = by_path

    async def get(self, ref: ArtifactRef) -> bytes:
        if ref.path not in self.by_path:
            raise TunewheelError(f"{ref.path} is not there")
        return self.by_path[ref.path]

    async def read(self, path: str) -> bytes | None:
        return self.by_path.get(path)

    async def exists(self, path: str) -> bool:
        return path in self.by_path


class Away(Files):
    async def get(self, ref: ArtifactRef) -> bytes:
        raise TransientError("the store does not answer")


async def test_a_version_is_opened_whole_or_not_at_all(embedder: Counting) -> None:
    files = build([document("gym", "Open at nine.")], embedder, SPEC, project="p", config_sha256="0" * 64)
    manifest, by_path = stored(files)
    data = manifest.model_dump_json().encode()
    ref = ArtifactRef(path="indexes/manifest.json", sha256=content_sha256(data), size_bytes=len(data))
    store = Files(by_path | {ref.path: data})
    index = await open_index(store, ref)
    assert index.manifest == manifest
    assert [row.document_id for row in index.rows] == ["gym"]
    assert not await is_deleted(store, ref)
    with pytest.raises(TransientError):
        await open_index(Away({}), ref)
    for one in (ref, *files_of(manifest)):
        lost = Files({path: kept for path, kept in store.by_path.items() if path != one.path})
        with pytest.raises(BrokenIndex, match="is not there"):
            await open_index(lost, ref)
        assert await is_deleted(lost, ref)
    damaged = Files(store.by_path | {ref.path: b"{"})
    with pytest.raises(BrokenIndex):
        await open_index(damaged, ref)
    assert not await is_deleted(damaged, ref), "a damaged file does not come back by itself"
