"""Versions in a store in memory, of files whose content nobody reads."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.index import IndexCounts, IndexManifest
from tunewheel_contracts.identity import content_sha256
from tunewheel_index import storing
from tunewheel_index.storing import IndexStore
from tunewheel_retrieval.files import IndexFiles
from tunewheel_runtime.store import ObjectStore

FILES = IndexFiles(
    index_id="ix-1",
    project="shop",
    config_sha256=content_sha256(b""),
    embedding="static",
    dimensions=3,
    passages=b"passages",
    vectors=b"vectors",
    lexical=b"lexical",
    documents=b"documents",
    counts=IndexCounts(documents=0, passages=0, tokens=0),
)


async def test_what_another_machine_stored_first_counts_for_as_long_as_it_is_whole() -> None:
    store = ObjectStore("memory://")
    versions, rounded = IndexStore(store), replace(FILES, vectors=b"vectors, rounded")
    first = await versions.write(FILES)
    assert await versions.write(rounded) == first
    vectors = decode_data(IndexManifest, await store.get(first)).vectors
    await store.replace(vectors.path, b"damaged")
    second = await versions.write(rounded)
    assert decode_data(IndexManifest, await store.get(second)).vectors.path != vectors.path
    assert await versions.write(FILES) == second


async def test_a_version_that_nobody_named_goes_after_a_while_and_those_that_were_named_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = ObjectStore("memory://")
    versions = IndexStore(store)

    async def named(index_id: str, *keep: str) -> None:
        await versions.write(replace(FILES, index_id=index_id))
        table = await versions.write_versions("shop", [])
        await versions.drop_old("shop", keep={index_id, *keep}, most=9, versions=table)

    await named("ix-1")
    await named("ix-2", "ix-1")
    await versions.write(replace(FILES, index_id="ix-stray"))
    await named("ix-3", "ix-2")
    assert "ix-stray" in await store.folders("indexes/shop"), "its process may still be about to name it"
    monkeypatch.setattr(storing, "STRAY_SECONDS", -1.0)
    await versions.write(replace(FILES, index_id="ix-1"))  # again, by a process that then dies
    await named("ix-4", "ix-3")
    assert await store.folders("indexes/shop") == ["ix-1", "ix-2", "ix-3", "ix-4", "versions"]
