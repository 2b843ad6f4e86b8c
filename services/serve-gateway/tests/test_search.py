"""What a question finds, over the wire: from a real index, for whom it may be."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from .test_retrieval import REFUND, SOPS, asked, indexed, retrieving, sources_of


async def searched(world: Any, question: str = REFUND, key: str = "none", **body: Any) -> tuple[int, Any]:
    sent = {"project": "desk", "question": question} | body
    headers = {"authorization": f"Bearer {key}"}
    async with world.session.post(f"{world.url}/v1/search", json=sent, headers=headers) as response:
        return response.status, await response.json()


async def test_a_search_tells_what_a_prompt_gets_and_why(world: Any):
    version = await retrieving(world, top_k=1, budget_tokens=192)
    status, found = await searched(world)
    assert (status, found["index_id"], found["budget_tokens"]) == (200, version.index_id, 192)
    first, second = found["passages"]
    assert (first["document_id"], first["words_rank"], first["vector_rank"]) == ("returns.md", 1, 1)
    assert first["words_score"] > second["words_score"]
    assert first["similarity"] > second["similarity"]
    assert [one["sent"] for one in found["passages"]] == [True, False]  # top_k
    marked = {first["text"][begin:end] for begin, end in first["marks"]}
    assert {"refund"} <= marked <= {"A", "refund", "takes"}
    assert first["text"] in found["context"]
    assert second["text"] not in found["context"]
    assert found["tokens"] == first["tokens"]
    _, headers = await asked(world)
    assert sources_of(headers) == [first["document_id"]]


async def test_nothing_is_asked_of_a_model_and_nothing_is_logged(world: Any):
    await retrieving(world)
    before = len(world.engine.asked)
    assert (await searched(world))[0] == 200
    assert len(world.engine.asked) == before
    await asked(world)
    assert len(await world.completions()) == 1


async def test_a_caller_finds_no_passage_for_other_groups_nor_of_another_project(
    make_world: Any, tmp_path: Path
):
    def entry(key: str, **more: Any) -> dict[str, Any]:
        return {"sha256": sha256(key.encode()).hexdigest()} | more

    keys = {
        "counsel": entry("k-counsel", groups=["legal"]),
        "viewer": entry("k-viewer", roles=["viewer"], projects=["desk"]),
        "reviewer": entry("k-elsewhere", roles=["reviewer"], projects=["other"]),
        "publisher": entry("k-publisher", roles=["publisher"]),
    }
    groups = {"legal": {"roles": ["application"], "projects": ["desk"]}}
    (tmp_path / "keys.yaml").write_text(json.dumps({"keys": keys, "groups": groups}))
    world = await make_world(identity="required", api_keys_file=tmp_path / "keys.yaml")
    world.declare(retrieval={})
    await indexed(world, SOPS, groups={"returns.md": ("legal",)})
    found = {key: await searched(world, key=key) for key in ("k-counsel", "k-viewer")}
    documents = {key: {one["document_id"] for one in told["passages"]} for key, (_, told) in found.items()}
    assert "returns.md" in documents["k-counsel"]
    assert "returns.md" not in documents["k-viewer"]
    assert [(await searched(world, key=key))[0] for key in ("k-elsewhere", "k-publisher", "k-no")] == [
        404, 403, 401,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"question": ""}, 400, "question"),
        ({"question": "x" * 4_001}, 400, "question"),
        ({"question": None}, 400, "question"),
        ({"k": 3}, 400, "k"),
        ({"project": "nobody"}, 404, "project"),
    ],
)
async def test_a_wrong_field_is_named(world: Any, body: dict[str, Any], status: int, param: str):
    await retrieving(world)
    found, told = await searched(world, **body)
    assert (found, told["error"]["param"]) == (status, param)


async def test_a_project_without_retrieval_or_without_an_index_says_so(world: Any):
    status, told = await searched(world)
    assert (status, "declares no retrieval" in told["error"]["message"]) == (400, True)
    world.declare(retrieval={})
    status, told = await searched(world)
    assert (status, "cannot be searched yet" in told["error"]["message"]) == (503, True)
