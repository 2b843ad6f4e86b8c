from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tunewheel_contracts.event import KafkaRecord
from tunewheel_serve_gateway.completions import spool as spools
from tunewheel_serve_gateway.completions.kept import Kept
from tunewheel_serve_gateway.completions.spool import Spool, UnusableSpool


def kept(n: int, *, text: str = "hi") -> Kept:
    record = KafkaRecord("inference.completed", f"c-{n}".encode(), text.encode(), {"ce_id": b"1"})
    return Kept("desk", "C-1", f"c-{n}", f"c-{n}", float(n), record)


def put(spool: Spool, *numbers: int, **values: Any) -> int:
    return spool.append([kept(n, **values).frame() for n in numbers])


def names(spool: Spool, most: int = 1_000) -> list[str]:
    return [one.completion_id for one in spool.read(most).kept]


def files(directory: Path) -> list[Path]:
    return sorted(directory.rglob("*.segment"))


def opened(directory: Path, **options: Any) -> Spool:
    spool = Spool(directory, **options)
    spool.take_over()
    return spool


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_the_next_process_finds_unacknowledged_entries_unchanged(directory: Path):
    spool = opened(directory)
    one, other = kept(1, text='line\nbreak "and" ü 🚲'), kept(2)
    assert spool.append([one.frame(), other.frame()]) == 2
    spool.acknowledge(spool.read(1))
    spool.close()
    after = Spool(directory)
    assert after.take_over() == 2  # a segment goes only when the broker has all of it
    assert after.read(10).kept == [one, other]


def test_entries_are_published_in_order_and_the_disk_is_empty_at_the_end(directory: Path):
    spool = opened(directory, segment_bytes=200)
    for n in range(20):
        put(spool, n)
    assert len(files(directory)) > 5
    said: list[str] = []
    while (head := spool.read(3)).reached:
        said += [one.completion_id for one in head.kept]
        spool.acknowledge(head)
    assert said == [f"c-{n}" for n in range(20)]
    assert (spool.count, spool.size_bytes, len(files(directory))) == (0, 0, 1)
    spool.close()
    assert not list(directory.iterdir())


def test_no_more_than_a_window_is_in_memory_and_a_larger_completion_alone(directory: Path):
    spool = opened(directory)
    put(spool, *range(5), text="x" * (2 << 20))
    put(spool, 5, text="x" * (9 << 20))
    read: list[int] = []
    while (head := spool.read(100)).reached:
        read.append(len(head.kept))
        spool.acknowledge(head)
    assert sum(read) == 6
    assert max(read) <= 2


def test_of_several_processes_each_takes_over_those_that_are_gone_and_no_other(directory: Path):
    living, gone = opened(directory), opened(directory)
    put(living, 1)
    put(gone, 2)
    gone.close()
    put(living, 3)
    other = opened(directory)
    assert names(other) == ["c-2"]
    other.acknowledge(other.read(10))
    other.close()
    living.close()
    assert names(opened(directory)) == ["c-1", "c-3"]


@pytest.mark.parametrize("tail", [b"\x05", b"\x05\0\0\0\1\2\3\4", b"\xff\xff\xff\xff\0\0\0\0", bytes(50)])
def test_a_torn_tail_is_cut_and_what_is_before_it_kept(directory: Path, tail: bytes):
    spool = opened(directory)
    put(spool, 1, 2)
    spool.close()
    (file,) = files(directory)
    whole = file.read_bytes()
    file.write_bytes(whole + tail)
    after = opened(directory)
    head = after.read(10)
    assert ([one.completion_id for one in head.kept], head.lost) == (["c-1", "c-2"], 0)
    after.acknowledge(head)
    assert not file.exists()


def drained(spool: Spool, most: int = 2) -> tuple[list[str], int]:
    """Acknowledge what can be read; return its names, and the number of lost completions."""
    said: list[str] = []
    lost = 0
    while (head := spool.read(most)).reached:
        said += [one.completion_id for one in head.kept]
        lost += head.lost
        spool.acknowledge(head)
    return said, lost


def test_a_segment_that_goes_bad_under_a_living_process_is_counted_and_set_aside(directory: Path):
    spool = opened(directory, segment_bytes=1)
    put(spool, 1, 2)
    put(spool, 3)
    first = files(directory)[0]
    first.write_bytes(bytes(first.stat().st_size))
    assert drained(spool) == (["c-3"], 2)
    assert (spool.count, [path.stem for path in directory.glob("*.damaged")]) == (0, [first.stem])
    spool.mark()
    assert not list(directory.glob("*.damaged")), "nobody can tell whose data it holds"


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("window", [4 << 20, 1])
def test_whichever_byte_of_a_segment_flips_at_most_one_completion_is_lost_and_it_is_counted(
    directory: Path, monkeypatch: pytest.MonkeyPatch, is_restarted: bool, window: int
):
    monkeypatch.setattr(spools, "READ_BYTES", window)
    spool = opened(directory)
    put(spool, 1, 2, 3, text='{"a": ["b"]}')
    (file,) = files(directory)
    whole = file.read_bytes()
    for place in range(0, len(whole), 5 if is_restarted else 1):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        if is_restarted:
            spool.close()
            spool = opened(directory)
        segment, said, lost = spool._segments[0], 0, 0
        while (head := spool.read(10)).reached:
            said, lost = said + len(head.kept), lost + head.lost
            ((_, segment.done, passed),) = head.reached
            segment.count -= passed
        segment.done, segment.count, segment.is_damaged = 0, 3, False
        assert (said + lost, lost <= 1) == (3, True), place


@pytest.mark.parametrize("damage", [bytes(150), b"\xff" * 150, b'["a"]' * 30])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_completions_before_and_after_a_damaged_block_are_delivered(
    directory: Path, damage: bytes, is_restarted: bool
):
    spool = opened(directory)
    put(spool, *range(6))
    (file,) = files(directory)
    if is_restarted:
        spool.close()
    content = bytearray(file.read_bytes())
    content[len(content) // 3 : len(content) // 3 + len(damage)] = damage
    file.write_bytes(content)
    said, lost = drained(opened(directory) if is_restarted else spool)
    assert {"c-0", "c-5"} < set(said)
    assert 1 <= lost <= 6 - len(said)
    assert is_restarted or lost == 6 - len(said)


ERRORS = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOSPC)


class Unreadable(io.BytesIO):
    error = 0

    def read(self, *_: Any) -> bytes:
        raise OSError(self.error, os.strerror(self.error))


@pytest.mark.parametrize("is_once", [False, True])
@pytest.mark.parametrize(
    "call",
    ["os.open", "io.open", "read", "os.write", "os.ftruncate", "os.rename", "os.unlink", "os.rmdir",
     "os.fstat", "os.listdir", "fcntl.flock"],
)  # fmt: skip
def test_nothing_is_lost_where_the_file_system_fails_for_a_while(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str, is_once: bool
):
    module, _, name = ("io.open" if call == "read" else call).partition(".")
    real = getattr(sys.modules[module], name)
    for error in ERRORS:
        failures = 0

        def fail(*values: Any, error: int = error, **options: Any) -> Any:
            nonlocal failures
            failures += 1
            if is_once and failures > 1:
                return real(*values, **options)
            if call == "read":
                Unreadable.error = error
                return Unreadable()
            raise OSError(error, os.strerror(error))

        folder = directory / errno.errorcode[error]
        before = psutil.Process().num_fds()
        gone, other, spool = (opened(folder, segment_bytes=200) for _ in range(3))
        for n in range(3):
            put(gone, n, n + 10)
        put(other, 20)
        put(spool, 30)
        damaged = files(spool._folders.own or folder)[0]  # so that a file is renamed, too
        damaged.write_bytes(bytes(damaged.stat().st_size))
        gone.close()
        spool.adopt()
        with monkeypatch.context() as patched:
            patched.setattr(sys.modules[module], name, fail)
            other.close()
            taken = [f"c-{n}" for n in (40, 41, 42) if put(spool, n)]
            spool.adopt()
            said, lost = drained(spool)
            spool.mark()
        assert failures
        assert call == "os.write" or len(taken) == 3
        taken += [f"c-{n}" for n in (50,) if put(spool, n)]
        spool.mark()
        more, lost_later = drained(spool)
        assert {*said, *more} >= {"c-0", "c-10", "c-1", "c-11", "c-2", "c-12", "c-20", "c-50", *taken}
        assert (lost + lost_later, spool.count, spool.unread, spool.holds_marked()) == (1, 0, None, False)
        spool.close()
        assert not files(folder)
        assert psutil.Process().num_fds() == before


def test_only_the_own_user_may_read_the_spool(directory: Path):
    put(opened(directory), 1)
    (file,) = files(directory)
    assert (directory.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o700, 0o700)
    assert file.stat().st_mode & 0o777 == 0o600


def test_over_the_limit_the_newest_are_refused_until_there_is_room(directory: Path):
    size = len(kept(1).frame())
    spool = opened(directory, limit_bytes=3 * size)
    assert put(spool, 1, 2) == 2
    assert not spool.refuses
    assert put(spool, 3, 4) == 1
    assert put(spool, 5) == 0
    assert spool.refuses
    spool.acknowledge(spool.read(10))
    assert put(spool, 6) == 1
    assert (names(spool), spool.refuses) == (["c-6"], False)


def test_a_disk_that_takes_nothing_is_told_and_taken_again_when_it_mends(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    spool = opened(directory)
    put(spool, 1)
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert put(spool, 2, text="x" * 25) == 0
        assert spool.refuses
    assert put(spool, 3) == 1
    assert names(spool) == ["c-1", "c-3"]
    spool.close()
    assert names(opened(directory)) == ["c-1", "c-3"]


@pytest.mark.parametrize("call", ["ftruncate", "open"])
def test_a_file_system_that_fails_leaves_nothing_open(
    directory: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    spool = opened(directory, segment_bytes=1)
    before = psutil.Process().num_fds()
    put(spool, 1)
    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        spool.acknowledge(spool.read(10))
        assert [put(spool, n) for n in range(2, 5)] in ([1, 0, 0], [1, 1, 1])
    assert psutil.Process().num_fds() <= before
    assert put(spool, 9) == 1
    assert psutil.Process().num_fds() == before
    assert names(spool)[-1] == "c-9"


def test_entries_from_before_a_mark_are_tracked_until_they_are_gone(directory: Path):
    gone = opened(directory)
    put(gone, 1)
    gone.close()
    spool = opened(directory)
    put(spool, 2)
    spool.mark()
    put(spool, 3)
    for left in (True, True, False):
        assert spool.holds_marked() is left or left
        spool.acknowledge(spool.read(1))
    assert not spool.holds_marked()
    assert not opened(directory / "another").holds_marked()


def test_a_folder_that_cannot_be_made_names_the_setting(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableSpool, match="TUNEWHEEL_WORK_DIR"):
        Spool(tmp_path / "file" / "spool").take_over()


ENDLESS = """
import asyncio, sys
from pathlib import Path
from opentelemetry.metrics import NoOpMeter
from tunewheel_contracts.event import new_event
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_serve_gateway.completions.log import CompletionLog
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.completions.recording import Recorder
from tunewheel_serve_gateway.completions.spool import Spool

async def publish(_): await asyncio.Event().wait()

async def client(log, names):
    for n in names:
        one = Exchange("desk", f"c-{n}", "desk-1", RouteRole.PRODUCTION, (("user", "hi"),))
        one.finish(0.1)
        await log.keep(one)
        print(one.completion_id, flush=True)

async def main():
    recorder = Recorder(lambda _: None, lambda: "")
    log = CompletionLog(recorder, publish, Metrics(NoOpMeter("test")), Spool(Path(sys.argv[1])))
    await log.recover()
    log.start()
    names = iter(range(10_000_000))
    await asyncio.gather(*(client(log, names) for _ in range(8)))

asyncio.run(main())
"""


def test_killed_it_has_everything_that_it_said_it_took(directory: Path):
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(directory)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().decode().strip() for _ in range(500)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.read().decode().split("\n")[:-1]
        process.wait()
    spool = opened(directory)
    found: list[str] = []
    while (head := spool.read(500)).reached:
        found += [one.completion_id for one in head.kept]
        spool.acknowledge(head)
    assert set(said) <= set(found)
    assert len(found) == len(set(found)) <= len(said) + 8
