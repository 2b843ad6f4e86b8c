"""The mirror of base models: read whole or not at all, whoever writes it, and never needed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.formats.run import BaseModelRef, mirror_of
from tunewheel_runtime.base_mirror import MirroredBase, fetch_base, mirror_base
from tunewheel_runtime.store import ObjectStore

NAME, COMMIT, LATER = "owner/name", "a" * 40, "b" * 40
BASE = BaseModelRef(name=NAME, revision=COMMIT)
FOLDER = f"{mirror_of(NAME)}/{COMMIT}"
FILES = {"config.json": b"{}", "model.safetensors": b"weights", "chat/template.jinja": b"{{ messages }}"}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore((tmp_path / "store").as_uri())


def write_base(folder: Path, **others: bytes) -> Path:
    for name, content in (FILES | others).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


async def test_another_machine_gets_the_files_and_no_pickle(store: ObjectStore, tmp_path: Path) -> None:
    code = {"pytorch_model.bin": b"pickle", "modeling.py": b"import os", "original/tokenizer.model": b"old"}
    await mirror_base(store, BASE, write_base(tmp_path / "hub", **code), tmp_path / "first", meant=True)
    for revision in (COMMIT, None, COMMIT):  # the third call finds what the others left
        assert await fetch_base(store, NAME, revision, tmp_path / "other") == COMMIT
        assert files_in(tmp_path / "other" / FOLDER) == FILES
    assert await fetch_base(store, "owner/other", None, tmp_path / "other") is None
    assert await fetch_base(store, "owner/other", LATER, tmp_path / "other") == LATER
    assert list((tmp_path / "other" / "bases").iterdir()) == [tmp_path / "other" / mirror_of(NAME)]


async def test_the_machine_that_mirrored_holds_the_files_once(store: ObjectStore, tmp_path: Path) -> None:
    hub, cache = write_base(tmp_path / "hub"), tmp_path / "cache"
    await mirror_base(store, BASE, hub, cache, meant=True)
    await fetch_base(store, NAME, None, cache)
    assert (cache / FOLDER).resolve() == hub
    (hub / "model.safetensors").write_bytes(b"spoilt")
    await fetch_base(store, NAME, None, cache)
    assert files_in(cache / FOLDER) == FILES
    assert (hub / "model.safetensors").read_bytes() == b"spoilt", "the hub's cache is the hub's"


async def test_a_link_to_a_cache_that_was_deleted_is_replaced(store: ObjectStore, tmp_path: Path) -> None:
    hub = write_base(tmp_path / "hub")
    await mirror_base(store, BASE, hub, tmp_path / "cache", meant=False)
    hub.rename(tmp_path / "elsewhere")
    assert await fetch_base(store, NAME, COMMIT, tmp_path / "cache") == COMMIT
    assert files_in(tmp_path / "cache" / FOLDER) == FILES


async def test_the_commit_that_was_mirrored_first_is_the_one_that_is_meant(
    store: ObjectStore, tmp_path: Path
) -> None:
    old = BaseModelRef(name=NAME, revision="0" * 40)
    newer = BaseModelRef(name=NAME, revision=LATER)
    hub, cache = write_base(tmp_path / "hub"), tmp_path / "cache"
    await mirror_base(store, old, hub, cache, meant=False)  # of a version that was pinned earlier
    assert await fetch_base(store, NAME, None, cache) is None
    await mirror_base(store, BASE, hub, cache, meant=True)
    await mirror_base(store, newer, hub, cache, meant=True)
    assert await fetch_base(store, NAME, None, cache) == COMMIT
    assert await fetch_base(store, NAME, LATER, cache) == LATER


async def test_only_commits_of_the_hub_are_mirrored(store: ObjectStore, tmp_path: Path) -> None:
    for revision in (f"sha256:{'a' * 64}", "main", f"../{COMMIT}", COMMIT.upper()):
        base = BaseModelRef(name=NAME, revision=revision)
        await mirror_base(store, base, write_base(tmp_path / "hub"), tmp_path / "cache", meant=True)
        assert await fetch_base(store, NAME, revision, tmp_path / "cache") == revision
    assert await store.list("") == []
    assert not (tmp_path / "cache").exists()


KILLED = """
import asyncio, os, pathlib, signal, sys
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_runtime.base_mirror import mirror_base
from tunewheel_runtime.store import ObjectStore

left = int(sys.argv[1])

class Store(ObjectStore):
    def die(self):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    async def put_file(self, *of, **named):
        self.die()
        return await super().put_file(*of, **named)

    async def put(self, *of):
        self.die()
        return await super().put(*of)

base = BaseModelRef(name=sys.argv[2], revision=sys.argv[3])
asyncio.run(mirror_base(Store(sys.argv[4]), base, pathlib.Path("hub"), pathlib.Path("cache"), meant=True))
"""


@pytest.mark.parametrize("writes", range(len(FILES) + 2))
async def test_a_mirror_whose_writer_was_killed_is_not_seen_and_is_completed(
    writes: int, store: ObjectStore, tmp_path: Path
) -> None:
    """Killed before its first write, between two files, before the manifest, before the commit is noted."""
    hub = write_base(tmp_path / "hub")
    command = [sys.executable, "-c", KILLED, str(writes), NAME, COMMIT, store.url]
    died = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path, check=False)
    assert died.returncode == -signal.SIGKILL
    left = await store.written("")
    assert len(left) == writes
    assert await fetch_base(store, NAME, None, tmp_path / "other") is None
    await fetch_base(store, NAME, COMMIT, tmp_path / "other")
    assert (tmp_path / "other").exists() == (f"{FOLDER}.json" in left)

    await mirror_base(store, BASE, hub, tmp_path / "cache", meant=True)
    assert await fetch_base(store, NAME, None, tmp_path / "other") == COMMIT
    assert files_in(tmp_path / "other" / FOLDER) == FILES
    whole = await store.written("")
    assert {path: whole[path] for path in left} == left, "what was there is not uploaded again"


async def test_two_machines_that_mirror_at_once_do_no_harm(store: ObjectStore, tmp_path: Path) -> None:
    machines = [tmp_path / "a", tmp_path / "b"]
    await asyncio.gather(
        *(mirror_base(store, BASE, write_base(one / "hub"), one / "cache", meant=True) for one in machines)
    )
    assert await fetch_base(store, NAME, None, tmp_path / "other") == COMMIT
    assert files_in(tmp_path / "other" / FOLDER) == FILES


async def test_a_damaged_file_is_refused_by_name_and_mended_as_told(
    store: ObjectStore, tmp_path: Path
) -> None:
    hub, root = write_base(tmp_path / "hub"), tmp_path / "store"
    await mirror_base(store, BASE, hub, tmp_path / "first", meant=True)
    damaged = root / FOLDER / "model.safetensors"
    damaged.write_bytes(b"weightS")
    with capture_logs() as logs:
        assert await fetch_base(store, NAME, None, tmp_path / "other") == COMMIT
    (told,) = logs
    assert (told["event"], told["log_level"]) == ("base_mirror_damaged", "error")
    assert f"{FOLDER}/model.safetensors hashes to" in told["reason"]
    assert f"delete {FOLDER}.json and the file" in told["fix"]
    assert not list((tmp_path / "other" / mirror_of(NAME)).iterdir())

    damaged.unlink()
    (root / f"{FOLDER}.json").unlink()
    await mirror_base(store, BASE, hub, tmp_path / "first", meant=True)
    await fetch_base(store, NAME, None, tmp_path / "other")
    assert files_in(tmp_path / "other" / FOLDER) == FILES


@pytest.mark.parametrize("path", [f"{FOLDER}.json", f"{mirror_of(NAME)}/main.json"])
async def test_a_damaged_note_is_named(path: str, store: ObjectStore, tmp_path: Path) -> None:
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    await store.replace(path, b"{")
    with capture_logs() as logs:
        await fetch_base(store, NAME, None, tmp_path / "other")
    assert [(one["event"], path in one["fix"]) for one in logs] == [("base_mirror_damaged", True)]
    assert not (tmp_path / "other").exists()


async def test_a_missing_file_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    await store.delete([f"{FOLDER}/config.json"])
    with capture_logs() as logs:
        await fetch_base(store, NAME, None, tmp_path / "other")
    assert [one["event"] for one in logs] == ["base_mirror_damaged"]
    assert not (tmp_path / "other" / FOLDER).exists()


async def test_a_pickle_that_somebody_added_to_the_manifest_is_not_fetched(
    store: ObjectStore, tmp_path: Path
) -> None:
    files = [await store.put(f"{FOLDER}/{name}", b"{}") for name in ("config.json", "model.bin", "setup.py")]
    await store.first_document(f"{FOLDER}.json", MirroredBase(base=BASE, files=tuple(files)))
    await fetch_base(store, NAME, COMMIT, tmp_path / "other")
    assert files_in(tmp_path / "other" / FOLDER) == {"config.json": b"{}"}


@pytest.mark.parametrize("revision", [COMMIT, None])
async def test_a_store_that_is_away_is_told_and_stops_nothing(
    revision: str | None, store: ObjectStore, tmp_path: Path
) -> None:
    hub = write_base(tmp_path / "hub")
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("a file in the place of a folder")
    with capture_logs() as logs:
        assert await fetch_base(store, NAME, revision, tmp_path / "cache") == revision
        await mirror_base(store, BASE, hub, tmp_path / "cache", meant=True)
    assert [one["event"] for one in logs] == ["base_mirror_away", "base_not_mirrored"]
    assert "the hub is asked" in logs[0]["reason"]


async def test_a_file_that_cannot_be_read_stops_nothing(store: ObjectStore, tmp_path: Path) -> None:
    hub = write_base(tmp_path / "hub")
    (hub / "model.safetensors").unlink()
    (hub / "model.safetensors").symlink_to("/proc/self/mem")
    with capture_logs() as logs:
        await mirror_base(store, BASE, hub, tmp_path / "cache", meant=True)
    assert [one["event"] for one in logs] == ["base_not_mirrored"]
    assert f"{FOLDER}.json" not in await store.list("")
