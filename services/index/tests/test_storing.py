"""Versions in a store in memory, of files whose content nobody reads."""

from __future__ import annotations

from dataclasses import replace

from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.index import IndexCounts, IndexManifest
from tunewheel_contracts.identity import content_sha256
from tunewheel_index.storing import IndexStore
from tunewheel_retrieval.building import IndexFiles
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
