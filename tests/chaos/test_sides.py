"""What the fault matrix takes for lost; the matrix itself runs at night."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tunewheel_runtime.deadletter import Position, Undecoded

from ..frozen.snapshot import unpack_store
from .fault_table import table
from .faults import Once
from .inputs import SNAPSHOT, Input
from .sides import Left, damaged, name_of


@pytest.fixture
def store(tmp_path: Path) -> Path:
    unpack_store(SNAPSHOT, tmp_path, without=("records", "caches"))
    return tmp_path


def paths_of(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def test_the_recorded_store_is_whole(store: Path) -> None:
    assert len(paths_of(store)) > 30
    assert damaged(store, paths_of(store)) == set()


@pytest.mark.parametrize(
    "name", ["datasets/*/manifest.json", "datasets/*/train.parquet", "*/*/*.safetensors"]
)
@pytest.mark.parametrize("harm", [lambda data: b"", lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_a_file_that_is_there_and_not_whole_counts_as_lost(
    store: Path, name: str, harm: Callable[[bytes], bytes]
) -> None:
    file, paths = min(store.glob(name)), paths_of(store)
    file.write_bytes(harm(file.read_bytes()))
    assert damaged(store, paths) == {str(file.relative_to(store))}


def test_what_a_file_refers_to_and_was_erased_is_not_missed(store: Path) -> None:
    file = min(store.glob("datasets/*/train.parquet"))
    assert str(file.relative_to(store)) in json.dumps(
        json.loads((file.parent / "manifest.json").read_bytes())
    )
    file.unlink()
    assert damaged(store, paths_of(store)) == set()


def test_a_cell_that_was_not_run_again_keeps_its_figures() -> None:
    before = table({"SIGSTOP": {"index": {"result": "same", "files": 3}, "train": {"result": "same"}}})
    after = table({"SIGSTOP": {"index": {"result": "failed"}}}, before)
    assert [line for line in before.splitlines() if line not in after] == [
        "| index | SIGSTOP | same | 3 files |"
    ]
    assert "| index | SIGSTOP | failed |  |" in after.splitlines()


def test_an_event_that_came_twice_is_not_missed_and_any_other_difference_is() -> None:
    calm = Left(Counter({("eval.passed", "1"): 1, ("eval.passed", "2"): 1}), {"a"}, (2, 2))
    assert Left(Counter({("eval.passed", "1"): 1, ("eval.passed", "2"): 3}), {"a"}, (2, 2)).lacks(calm) == []
    hard = Left(Counter({("eval.passed", "1"): 1}), {"b"}, (3, 2))
    assert hard.lacks(calm) == ["('eval.passed', '2')", "a", "(2, 2)"]
    assert calm.lacks(hard) == ["b", "(3, 2)"]


def test_refused_messages_without_an_id_are_told_apart_by_their_bytes() -> None:
    def letter(value: bytes | None, **headers: bytes) -> Undecoded:
        place = Position("ticket.published.dlq", 0, 7)
        return Undecoded(place, b"T-1", value, {"dlq_field": b"(body)", **headers})

    assert name_of(letter(b"{")) == name_of(replace(letter(b"{"), key=None))
    assert len({name_of(letter(value)) for value in (b"{", b"[", b"", b"{ ")}) == 4
    assert name_of(letter(None)) == name_of(letter(b""))
    assert name_of(letter(b"{", ce_id=b"e-1")) == name_of(letter(b"[", ce_id=b"e-1")) == "e-1"


def test_each_side_is_given_the_same_to_the_byte() -> None:
    first, second = (Input("curate", ["document.withdrawn", "record.ingested"]).lines for _ in range(2))
    assert len(first["document.withdrawn"]) == 1
    assert first == second


def test_what_all_share_goes_away_once_when_the_last_has_asked_or_failed() -> None:
    acts: list[str] = []

    async def ask() -> None:
        once = Once(lambda: acts.append("killed"), ["ingest", "curate", "index"])
        asked = [asyncio.create_task(once.ask(service)) for service in ("ingest", "curate")]
        await asyncio.sleep(0.05)
        assert acts == []
        once.awaited.discard("index")  # as when its cell fails
        await asyncio.gather(*asked)

    asyncio.run(ask())
    assert acts == ["killed"]
