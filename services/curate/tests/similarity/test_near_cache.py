"""The cache on a real store: what happens to it costs time and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tunewheel_curate.similarity.near_cache import NearCache, packed, unpacked
from tunewheel_curate.similarity.near_index import NearIndex, empty_index, grow
from tunewheel_runtime.store import ObjectStore

TEXTS = pl.Series([f"text number {number} of many that nobody will ever read twice" for number in range(30)])


@pytest.fixture
def index() -> NearIndex:
    return grow(empty_index(), TEXTS)[0]


async def test_what_was_written_is_read_and_replaced(tmp_path: Path, index: NearIndex) -> None:
    cache = NearCache(ObjectStore(str(tmp_path)))
    assert len(await cache.read("shop")) == 0
    await cache.write("shop", index)
    assert packed(await cache.read("shop")) == packed(index)
    smaller = grow(index, TEXTS[:10])[0]
    await cache.write("shop", smaller)
    assert len(await cache.read("shop")) == 10
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
    assert len(await cache.read("shop-2")) == 0
    await cache.forget("shop")
    assert len(await cache.read("shop")) == 0


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
async def test_a_broken_object_counts_as_none(tmp_path: Path, index: NearIndex, damage: str) -> None:
    cache = NearCache(ObjectStore(str(tmp_path)))
    await cache.write("shop", index)
    (path,) = (path for path in tmp_path.rglob("*") if path.is_file())
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0xFF
    path.write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "foreign": b"PK no archive"}.get(damage, data)
    )
    assert len(await cache.read("shop")) == 0
    await cache.write("shop", index)
    assert len(await cache.read("shop")) == len(index)


def test_arrays_that_do_not_fit_together_are_refused(index: NearIndex) -> None:
    beyond = np.array([len(index)], np.uint64)
    changes = (
        {"sizes": index.sizes[1:]},
        {"codes": beyond, "shared": np.ones(1, np.uint32)},
        {"low": index.low.astype(np.int64)},
        {"bands": index.bands[1:]},
    )
    for change in changes:
        fields = {name: getattr(index, name) for name in NearIndex.__dataclass_fields__} | change
        assert unpacked(packed(NearIndex(**fields))) is None


async def test_a_store_that_is_away_costs_only_time(tmp_path: Path, index: NearIndex) -> None:
    cache = NearCache(ObjectStore(str(tmp_path)))
    await cache.write("shop", index)
    folder = tmp_path / "caches"
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    folder.write_text("a file where a folder should be")
    assert len(await cache.read("shop")) == 0
    await cache.write("shop", index)
