"""The mirror of base models: read whole or not at all, whoever writes it, and never needed."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.run import BaseModelRef, mirror_of
from tunewheel_contracts.identity import sha256_file
from tunewheel_runtime.base_mirror import MirroredBase, fetch_base, look_into_mirror, mirror_base
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


WEIGHTS, NOTE, MEANT = f"{FOLDER}/model.safetensors", f"{FOLDER}.json", f"{mirror_of(NAME)}/main.json"


def note(**of_base: str) -> bytes:
    return MirroredBase(base=BASE.model_copy(update=of_base), files=()).model_dump_json().encode()


def meaning(**of_base: str) -> bytes:
    return BASE.model_copy(update=of_base).model_dump_json().encode()


DAMAGES: dict[str, tuple[str, bytes | None, str]] = {
    "another byte": (WEIGHTS, b"weightS", f"{WEIGHTS} hashes to"),
    "cut short": (WEIGHTS, b"weig", f"{WEIGHTS} hashes to"),
    "empty": (f"{FOLDER}/config.json", b"", f"{FOLDER}/config.json hashes to"),
    "missing": (f"{FOLDER}/chat/template.jinja", None, f"{FOLDER}/chat/template.jinja is not in"),
    "half a note": (NOTE, b"{", "Invalid JSON"),
    "the note of another base": (NOTE, note(name="owner/other"), "name is 'owner/other'"),
    "the note of another commit": (NOTE, note(revision=LATER), f"revision is '{LATER}'"),
    "half a meaning": (MEANT, b"{", "Invalid JSON"),
    "the meaning of another id": (MEANT, meaning(name="Owner/name"), "name is 'Owner/name'"),
    "a meaning that is no commit": (MEANT, meaning(revision="main"), "revision is 'main'"),
}


@pytest.fixture(params=DAMAGES.values(), ids=DAMAGES)
async def damage(
    request: pytest.FixtureRequest, store: ObjectStore, tmp_path: Path
) -> tuple[str, bytes | None, str]:
    """A whole mirror, of which one object is damaged."""
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    path, content, _ = request.param
    if content is None:
        await store.delete([path])
    else:
        await store.replace(path, content)
    return request.param


async def test_damage_is_told_and_mended_by_the_next_machine_that_asks_the_hub(
    damage: tuple[str, bytes | None, str], store: ObjectStore, tmp_path: Path
) -> None:
    path, _, reason = damage
    with capture_logs() as logs:
        found = await fetch_base(store, NAME, None, tmp_path / "other")
    (told,) = logs
    assert (told["event"], told["log_level"]) == ("base_mirror_damaged", "error")
    assert reason in told["reason"]
    assert told["fix"].startswith(f"delete {MEANT if path == MEANT else NOTE} from the store")
    assert found == (None if path == MEANT else COMMIT)
    assert not (tmp_path / "other").exists() or not [*(tmp_path / "other" / mirror_of(NAME)).iterdir()]

    with capture_logs() as logs:
        await mirror_base(store, BASE, write_base(tmp_path / "hub-2"), tmp_path / "other", meant=True)
        for machine in ("other", "third"):
            assert await fetch_base(store, NAME, None, tmp_path / machine) == COMMIT
            assert files_in(tmp_path / machine / FOLDER) == FILES
    assert logs == []
    assert {*(await look_into_mirror(store))[0].values()} == {""}


async def test_the_fix_that_is_told_mends_where_no_machine_asks_the_hub(
    damage: tuple[str, bytes | None, str], store: ObjectStore, tmp_path: Path
) -> None:
    """The machine that made the mirror has the files, and does not look at the copies."""
    await store.delete([MEANT if damage[0] == MEANT else NOTE])
    await mirror_base(store, BASE, tmp_path / "hub", tmp_path / "first", meant=True)
    assert await fetch_base(store, NAME, None, tmp_path / "other") == COMMIT
    assert files_in(tmp_path / "other" / FOLDER) == FILES


async def test_a_hub_cache_that_is_damaged_spoils_no_whole_mirror(store: ObjectStore, tmp_path: Path) -> None:
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    before = await store.read_folder("bases")
    spoilt = write_base(tmp_path / "spoilt", **{"model.safetensors": b"weightS"})
    with capture_logs() as logs:
        await mirror_base(store, BASE, spoilt, tmp_path / "other", meant=True)
    assert [one["event"] for one in logs] == ["base_not_mirrored"]
    assert str(spoilt / "model.safetensors") in logs[0]["reason"]
    assert await store.read_folder("bases") == before


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files on this machine that were hashed."""
    seen: list[Path] = []

    def counted(path: Path) -> str:
        seen.append(path)
        return sha256_file(path)

    monkeypatch.setattr("tunewheel_runtime.store.sha256_file", counted)
    return seen


async def test_what_did_not_change_since_its_download_is_not_hashed_again(
    hashed: list[Path], store: ObjectStore, tmp_path: Path
) -> None:
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    cache = tmp_path / "other"
    for _ in range(3):
        await fetch_base(store, NAME, None, cache)
    assert hashed == [], "a download is hashed as it comes"
    for _ in range(3):  # the machine that mirrored has no download of the store
        await fetch_base(store, NAME, COMMIT, tmp_path / "first")
    assert len(hashed) == len(FILES)

    weights, inode = cache / WEIGHTS, (cache / WEIGHTS).stat().st_ino
    weights.write_bytes(b"weightS")
    assert weights.stat().st_ino == inode
    os.utime(weights, ns=(0, 0))
    await fetch_base(store, NAME, None, cache)
    assert files_in(cache / FOLDER) == FILES
    (cache / FOLDER / "config.json").unlink()
    await fetch_base(store, NAME, None, cache)
    assert files_in(cache / FOLDER) == FILES


@pytest.mark.parametrize("content", [None, b"", b"[]", b"\xff"])
async def test_files_without_sound_marks_are_hashed(
    content: bytes | None, hashed: list[Path], store: ObjectStore, tmp_path: Path
) -> None:
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    await fetch_base(store, NAME, None, tmp_path / "other")
    marks = tmp_path / "other" / f"{FOLDER}.hashed"
    marks.unlink() if content is None else marks.write_bytes(content)
    for _ in range(2):
        await fetch_base(store, NAME, None, tmp_path / "other")
    assert len(hashed) == len(FILES)


async def test_a_cache_that_cannot_be_written_is_hashed_each_time(
    hashed: list[Path], store: ObjectStore, tmp_path: Path
) -> None:
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    write_base(tmp_path / "other" / FOLDER)
    (tmp_path / "other" / f"{FOLDER}.hashed").mkdir()
    for _ in range(2):
        assert await fetch_base(store, NAME, None, tmp_path / "other") == COMMIT
    assert len(hashed) == 2 * len(FILES)


async def test_a_disk_that_cannot_hold_the_base_is_named_and_tried_again(
    store: ObjectStore, tmp_path: Path
) -> None:
    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    cache, before = tmp_path / "other", resource.getrlimit(resource.RLIMIT_FSIZE)
    for revision in (None, COMMIT):
        resource.setrlimit(resource.RLIMIT_FSIZE, (4, before[1]))
        try:
            with pytest.raises(TransientError, match=r"File too large.*TUNEWHEEL_CACHE_DIR") as caught:
                await fetch_base(store, NAME, revision, cache)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert f"{cache} cannot store the base {NAME}" in str(caught.value)
        assert not [*(cache / mirror_of(NAME)).iterdir()]
    await fetch_base(store, NAME, COMMIT, cache)
    assert files_in(cache / FOLDER) == FILES
    (tmp_path / "file").write_text("a file in the place of a folder")
    with pytest.raises(TransientError, match="cannot store the base"):
        await fetch_base(store, NAME, COMMIT, tmp_path / "file")


async def test_a_pickle_that_somebody_added_to_the_manifest_is_not_fetched(
    store: ObjectStore, tmp_path: Path
) -> None:
    files = [await store.put(f"{FOLDER}/{name}", b"{}") for name in ("config.json", "model.bin", "setup.py")]
    await store.first_document(f"{FOLDER}.json", MirroredBase(base=BASE, files=tuple(files)))
    await fetch_base(store, NAME, COMMIT, tmp_path / "other")
    assert files_in(tmp_path / "other" / FOLDER) == {"config.json": b"{}"}


async def test_a_store_that_is_away_is_told_and_stops_nothing_where_the_commit_is_known(
    store: ObjectStore, tmp_path: Path
) -> None:
    hub = write_base(tmp_path / "hub")
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("a file in the place of a folder")
    with capture_logs() as logs:
        assert await fetch_base(store, NAME, COMMIT, tmp_path / "cache") == COMMIT
        await mirror_base(store, BASE, hub, tmp_path / "cache", meant=True)
    assert [one["event"] for one in logs] == ["base_mirror_away", "base_not_mirrored"]
    assert "the hub is asked" in logs[0]["reason"]


async def test_without_the_store_nobody_guesses_which_commit_an_id_means(
    store: ObjectStore, tmp_path: Path
) -> None:
    """The hub's newest commit may be another one than the mirrored one, which other machines take."""
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("a file in the place of a folder")
    with pytest.raises(TransientError, match=f"which commit {NAME} means is not known"):
        await fetch_base(store, NAME, None, tmp_path / "cache")
    assert await fetch_base(store, "/models/own", None, tmp_path / "cache") is None, "is never mirrored"


async def test_a_store_that_goes_away_once_the_commit_is_known_stops_nothing(
    store: ObjectStore, tmp_path: Path
) -> None:
    class Away(ObjectStore):
        async def parts(self, ref: ArtifactRef) -> AsyncIterator[bytes]:
            raise TransientError("the store is away")
            yield b""

    await mirror_base(store, BASE, write_base(tmp_path / "hub"), tmp_path / "first", meant=True)
    with capture_logs() as logs:
        assert await fetch_base(Away(store.url), NAME, None, tmp_path / "other") == COMMIT
    assert [one["event"] for one in logs] == ["base_mirror_away"]


async def test_a_file_that_cannot_be_read_stops_nothing(store: ObjectStore, tmp_path: Path) -> None:
    hub = write_base(tmp_path / "hub")
    (hub / "model.safetensors").unlink()
    (hub / "model.safetensors").symlink_to("/proc/self/mem")
    with capture_logs() as logs:
        await mirror_base(store, BASE, hub, tmp_path / "cache", meant=True)
    assert [one["event"] for one in logs] == ["base_not_mirrored"]
    assert f"{FOLDER}.json" not in await store.list("")
