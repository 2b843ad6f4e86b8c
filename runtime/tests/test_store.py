from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import (
    PART_BYTES,
    ArtifactConflict,
    ArtifactMissing,
    CorruptArtifact,
    ObjectStore,
)
from tunewheel_runtime.telemetry import make_telemetry

TICK = timedelta(milliseconds=20)
"""A file's time is that of the kernel's last tick; an object's in S3 is a whole second."""


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """A server of S3's protocol with the bucket ``tunewheel``; yields what a client's environment tells."""
    from boto3 import client
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    told = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_REGION": "us-east-1"}
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "k", "aws_secret_access_key": "s", "region_name": "us-east-1"}
    client("s3", endpoint_url=url, **keys).create_bucket(Bucket="tunewheel")
    yield told | {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}
    server.stop()


@pytest.fixture(params=["file", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    if request.param != "s3":
        return ObjectStore((tmp_path / "store").as_uri() if request.param == "file" else "memory://")
    for name, value in request.getfixturevalue("s3").items():
        monkeypatch.setenv(name, value)
    return ObjectStore(f"s3://tunewheel/{tmp_path.name}")


async def test_creating_twice_is_harmless_and_other_content_is_a_conflict(store: ObjectStore) -> None:
    first = await store.put("a/b.json", b"one")
    assert await store.put("a/b.json", b"one") == first
    assert await store.get(first) == b"one"
    with pytest.raises(ArtifactConflict, match=r"a/b\.json"):
        await store.put("a/b.json", b"two")
    assert await store.get(first) == b"one"


async def test_missing_and_corrupt_are_told_apart(store: ObjectStore) -> None:
    ref = await store.put("a", b"one")
    absent = ArtifactRef(path="b", sha256=ref.sha256, size_bytes=3)
    with pytest.raises(ArtifactMissing, match="b is not in"):
        await store.get(absent)
    with pytest.raises(CorruptArtifact):
        await store.get(ref.model_copy(update={"sha256": content_sha256(b"two")}))
    assert await store.read("b") is None
    assert await store.exists("a")
    assert not await store.exists("b")
    assert (await store.size("a"), await store.size("b")) == (3, None)


async def test_directories_travel_whole(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "a.txt").write_bytes(b"a")
    (source / "deep" / "b.bin").write_bytes(b"\x00b")
    refs = await store.put_directory("things/x", source)
    assert [ref.path for ref in refs] == ["things/x/a.txt", "things/x/deep/b.bin"]
    assert (await store.put_directory("things/x", source, last="a.txt"))[-1].path == "things/x/a.txt"
    assert await store.list("things") == ["things/x/a.txt", "things/x/deep/b.bin"]
    assert [await store.folders(at) for at in ("things", "things/x", "elsewhere")] == [["x"], ["deep"], []]

    destination = await store.fetch_directory(refs, "things/x", tmp_path / "cache" / "x")
    assert (destination / "deep" / "b.bin").read_bytes() == b"\x00b"
    (destination / "a.txt").write_bytes(b"tampered")
    await store.fetch_directory(refs, "things/x", destination)
    assert (destination / "a.txt").read_bytes() == b"a"
    assert not list((tmp_path / "cache").glob(".fetch-*"))


async def test_what_a_killed_process_left_of_a_download_is_deleted(
    store: ObjectStore, tmp_path: Path
) -> None:
    """A large download takes hours, in which only its newest file changes."""
    ref = await store.put("things/x/a", b"a")
    for name in ("killed", "alive"):
        folder = tmp_path / "cache" / f".fetch-{name}" / "files"
        folder.mkdir(parents=True)
        (folder / "large").touch()
        for path in (folder / "large", folder, folder.parent):
            os.utime(path, (0, 0))
    (tmp_path / "cache" / ".fetch-alive" / "files" / "large").touch()
    await store.fetch_directory([ref], "things/x", tmp_path / "cache" / "x")
    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"x", ".fetch-alive"}


@pytest.mark.parametrize("kind", ["files", "files on XFS", "link"])
@pytest.mark.parametrize("faster", [0, 1, 2])
async def test_processes_that_download_the_same_files_at_once_do_not_fail(
    faster: int, kind: str, store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``faster`` other processes put the files, or a link, in their place just before this one does."""
    ref, rename, destination = await store.put("things/x/a", b"a"), os.replace, tmp_path / "x"
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "a").write_bytes(b"a")

    def lose(source: Path, target: Path) -> None:
        nonlocal faster
        if target == destination and faster:
            faster -= 1
            if kind == "link":
                destination.symlink_to(tmp_path / "hub")
            else:
                destination.mkdir()
                (destination / "a").write_bytes(b"a")
        try:
            rename(source, target)
        except OSError as error:
            if kind == "files on XFS" and error.errno == errno.ENOTEMPTY:
                error.errno = errno.EEXIST
            raise

    monkeypatch.setattr(os, "replace", lose)
    await store.fetch_directory([ref], "things/x", destination)
    assert faster == 0
    assert (destination / "a").read_bytes() == (tmp_path / "hub" / "a").read_bytes() == b"a"
    assert [path.name for path in tmp_path.glob("*x*")] == ["x"]


async def test_the_store_says_when_each_object_was_last_written(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"one")
    await store.put_file("files/a", tmp_path / "one", sha256=content_sha256(b"one"))
    first = (await store.written("files"))["files/a"]
    tick = timedelta(seconds=1) if store.url.startswith("s3:") else TICK
    while datetime.now(UTC) <= first + tick:
        await asyncio.sleep(TICK.total_seconds())
    await store.put_file("files/a", tmp_path / "one", sha256=content_sha256(b"one"))
    assert first < (await store.written("files"))["files/a"]
    assert await store.written("nothing") == {}


async def test_a_file_outside_the_prefix_is_refused(store: ObjectStore, tmp_path: Path) -> None:
    ref = await store.put("elsewhere/a", b"a")
    with pytest.raises(CorruptArtifact, match="is not below"):
        await store.fetch_directory([ref], "things", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("between", ["/", "x//", "", "./", "x/./"])
async def test_a_path_that_leads_out_of_the_folder_is_refused(between: str, tmp_path: Path) -> None:
    """``things`` + ``/`` + an absolute path is a valid reference, and names no file below ``things``."""
    store, outside = ObjectStore("memory://"), tmp_path / "outside"
    outside.write_bytes(b"mine")
    tail = str(outside).lstrip("/") if between in ("/", "x//") else ""
    ref = ArtifactRef(path=f"things/{between}{tail}", sha256=content_sha256(b"theirs"), size_bytes=6)
    with pytest.raises(CorruptArtifact, match="is not below things"):
        await store.fetch_directory([ref], "things", tmp_path / "cache" / "x")
    assert outside.read_bytes() == b"mine"
    assert not (tmp_path / "cache").exists()


async def test_a_store_error_is_one_line(tmp_path: Path) -> None:
    store = ObjectStore((tmp_path / "store").as_uri())
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("a file in the place of a folder")
    with pytest.raises(TransientError, match=r"^cannot write a/b: .*os error 20\)$") as caught:
        await store.put("a/b", b"one")
    assert "\n" not in str(caught.value)


async def test_requests_are_measured_by_operation_and_outcome(tmp_path: Path) -> None:
    telemetry = make_telemetry("desk", None)
    store = ObjectStore((tmp_path / "store").as_uri(), telemetry.meter)
    ref = await store.put("a", b"four")
    await store.put("a", b"four")  # lies there already: a read of it, and no failure
    assert await store.read("nothing") is None
    await store.download(ref, tmp_path / "copy")
    assert not await store.exists("nothing")
    await store.list("")
    await store.folders("")
    await store.delete(["a", "nothing"])
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("a file in the place of a folder")
    with pytest.raises(TransientError):
        await store.replace("a/b", b"six")
    lines = telemetry.metrics_text().splitlines()
    counted = dict(line.rsplit(" ", 1) for line in lines if line.startswith("tunewheel_store_seconds_count"))
    done = {"write": "2", "read": "3", "find": "1", "list": "2", "delete": "2"}
    expected = {(operation, "done"): number for operation, number in done.items()} | {
        ("write", "failed"): "1"
    }
    assert counted == {
        f'tunewheel_store_seconds_count{{service="desk",operation="{operation}",outcome="{outcome}"}}': number
        for (operation, outcome), number in expected.items()
    }
    for operation, size in (("write", 4), ("read", 8)):
        assert f'tunewheel_store_bytes_total{{service="desk",operation="{operation}"}} {size}' in lines


async def test_deleting_what_is_gone_is_fine(store: ObjectStore) -> None:
    await store.put("a", b"a")
    await store.delete(["a", "never-there"])
    assert not await store.exists("a")


async def test_a_file_goes_up_and_comes_down_a_part_at_a_time(store: ObjectStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * 60_000  # three parts
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(data)
    digest = content_sha256(data)
    ref = await store.put_file(f"documents/{digest}", source, sha256=digest)
    assert ref.size_bytes == len(data)
    assert await store.put_file(f"documents/{digest}", source, sha256=digest) == ref
    await store.download(ref, target)
    assert target.read_bytes() == data


async def test_a_directory_larger_than_memory_comes_down_a_part_at_a_time(
    tmp_path: Path,
) -> None:
    store = ObjectStore((tmp_path / "store").as_uri())
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.truncate(8 * PART_BYTES)
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    ref = await store.put_file("things/x/weights", source, sha256=digest)
    tracemalloc.start()
    try:
        fetched = await store.fetch_directory([ref], "things/x", tmp_path / "cache")
        assert tracemalloc.get_traced_memory()[1] < 3 * PART_BYTES
    finally:
        tracemalloc.stop()
    assert (fetched / "weights").stat().st_size == ref.size_bytes == 8 * PART_BYTES


async def test_a_download_is_verified(store: ObjectStore, tmp_path: Path) -> None:
    ref = await store.put("a", b"one")
    with pytest.raises(CorruptArtifact):
        await store.download(ref.model_copy(update={"sha256": content_sha256(b"two")}), tmp_path / "x")
    with pytest.raises(ArtifactMissing, match="b is not in"):
        await store.download(ref.model_copy(update={"path": "b"}), tmp_path / "x")


async def test_the_document_that_was_stored_first_stays() -> None:
    store = ObjectStore("memory://")
    one, other = (ArtifactRef(path="p", sha256=digit * 64, size_bytes=1) for digit in "01")
    assert await store.document("notes/a.json", ArtifactRef) is None
    assert await store.first_document("notes/a.json", one) == one
    assert await store.first_document("notes/a.json", other) == one
    assert await store.document("notes/a.json", ArtifactRef) == one
    await store.put("notes/b.json", b"{}")
    with pytest.raises(ValidationError):
        await store.document("notes/b.json", ArtifactRef)
