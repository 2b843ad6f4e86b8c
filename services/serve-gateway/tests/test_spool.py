from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_serve_gateway.exchange import Exchange
from tunewheel_serve_gateway.spool import Spool, UnusableSpool


def exchange(n: int, *, text: str = "hi") -> Exchange:
    made = Exchange("desk", f"c-{n}", "desk-1", RouteRole.CANARY, (("system", "be kind"), ("user", text)))
    made.output = text
    made.finish(0.1)
    made.completed_at = float(n)
    return made


def names(taken: list[tuple[Exchange, Any]]) -> list[str]:
    return [one.completion_id for one, _ in taken]


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.jsonl"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def test_what_was_not_acknowledged_is_found_by_the_next_as_it_was(directory: Path):
    spool = Spool(directory)
    kept, gone = exchange(1, text='line\nbreak "and" ü 🚲'), exchange(2)
    spool.append(kept)
    spool.acknowledge(spool.append(gone))
    spool.close()
    (found, _), (again, _) = Spool(directory).take_over()
    assert (found, again) == (kept, gone)  # a file goes only when the broker has all of it


def test_the_disk_is_empty_once_everything_is_acknowledged(directory: Path):
    spool = Spool(directory, segment_bytes=200)
    held = [spool.append(exchange(n)) for n in range(20)]
    assert len(files(directory)) > 5
    for segment in held:
        spool.acknowledge(segment)
    assert spool.size_bytes == 0
    assert len(files(directory)) == 1
    spool.close()
    assert not files(directory)


def test_leftovers_go_once_the_broker_has_them(directory: Path):
    spool = Spool(directory)
    for n in (2, 1):
        spool.append(exchange(n))
    spool.close()
    after = Spool(directory)
    taken = after.take_over()
    assert names(taken) == ["c-1", "c-2"]
    for _, segment in taken:
        after.acknowledge(segment)
    after.close()
    assert not files(directory)


def test_the_files_of_a_living_process_are_left_alone(directory: Path):
    living = Spool(directory)
    living.append(exchange(1))
    other = Spool(directory)
    assert other.take_over() == []
    other.close()
    living.close()
    assert names(Spool(directory).take_over()) == ["c-1"]


def test_half_a_line_is_left_out_and_what_is_around_it_kept(directory: Path):
    spool = Spool(directory)
    spool.append(exchange(1))
    spool.close()
    (file,) = files(directory)
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"project":"desk"}\n' + whole[: len(whole) // 2])
    assert names(Spool(directory).take_over()) == ["c-1"]


def test_nobody_else_may_read_it(directory: Path):
    spool = Spool(directory)
    spool.append(exchange(1))
    assert (directory.stat().st_mode & 0o777, files(directory)[0].stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_disk_that_takes_nothing_is_told_and_taken_again_when_it_mends(
    directory: Path, monkeypatch: pytest.MonkeyPatch
):
    spool = Spool(directory)
    spool.append(exchange(1))
    real = os.write

    def full(descriptor: int, data: Any) -> int:
        if len(data) > 10:
            return real(descriptor, data[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        assert spool.append(exchange(2, text="x" * 25)) is None
    assert spool.append(exchange(3)) is not None
    spool.close()
    assert names(Spool(directory).take_over()) == ["c-1", "c-3"]


def test_a_file_that_cannot_be_named_leaves_nothing_open(directory: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(directory)
    before = psutil.Process().num_fds()
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", refuse)
        assert [spool.append(exchange(n)) for n in range(5)] == [None] * 5
    assert psutil.Process().num_fds() == before
    assert not list(directory.iterdir())
    assert spool.append(exchange(9)) is not None


def test_a_file_that_cannot_be_emptied_is_given_up_and_its_descriptor_never_written_to_again(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    spool = Spool(directory)
    before = psutil.Process().num_fds()
    segment = spool.append(exchange(1))
    assert segment is not None
    with monkeypatch.context() as patched:
        patched.setattr(os, "ftruncate", refuse)
        spool.acknowledge(segment)
    assert psutil.Process().num_fds() == before
    # The next file that this process opens, a client's socket for one, gets the number that was given back.
    with (tmp_path / "of somebody else").open("wb") as stream:
        assert stream.fileno() == segment.descriptor
        assert spool.append(exchange(2)) is not None
        assert os.fstat(stream.fileno()).st_size == 0
    spool.close()
    assert names(Spool(directory).take_over()) == ["c-2"]


def test_text_that_is_no_unicode_is_not_kept_and_breaks_nothing(directory: Path):
    spool = Spool(directory)
    assert spool.append(exchange(1, text="\ud800")) is None
    assert spool.append(exchange(2)) is not None


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
from tunewheel_serve_gateway.completion_log import CompletionLog
from tunewheel_serve_gateway.exchange import Exchange
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.spool import Spool

async def publish(_): await asyncio.Event().wait()

async def main():
    wrap = lambda data: new_event(data, source="/test")
    log = CompletionLog(wrap, publish, Metrics(NoOpMeter("test")), Spool(Path(sys.argv[1])))
    await log.recover()
    log.start()
    for n in range(10_000):
        one = Exchange("desk", f"c-{n}", "desk-1", RouteRole.PRODUCTION, (("user", "hi"),))
        one.finish(0.1)
        if not log.offer(one):
            break
        print(one.completion_id, flush=True)
        await asyncio.sleep(0)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_killed_it_has_everything_that_it_said_it_took(directory: Path):
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(directory)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = [process.stdout.readline().decode().strip() for _ in range(500)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.read().decode().split("\n")[:-1]
        process.wait()
    found = names(Spool(directory).take_over())
    assert set(said) <= set(found)
    assert len(found) == len(set(found)) <= len(said) + 1
