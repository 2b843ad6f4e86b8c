from __future__ import annotations

import itertools
import threading
from pathlib import Path

from tunewheel_train.heartbeat import Heartbeat, SearchSigns, moved_bytes
from tunewheel_train.progress import Alive, Searching


def test_it_beats_while_the_body_waits_and_no_longer():
    beats = threading.Semaphore(0)
    with Heartbeat(beats.release, 0.001):
        for _ in range(3):
            assert beats.acquire(timeout=60)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_it_ends_quietly_when_nobody_listens():
    called = threading.Event()

    def beat() -> None:
        called.set()
        raise BrokenPipeError

    with Heartbeat(beat, 0.001):
        assert called.wait(60)


def test_a_search_comes_further_while_much_is_read_or_written():
    moved = itertools.chain([0, 900_000, 1_900_000, 1_900_100, 5_000_000]).__next__
    signs = SearchSigns(moved)
    assert [signs() for _ in range(4)] == [
        Alive(), Searching(moved_bytes=1_900_000), Alive(), Searching(moved_bytes=5_000_000),
    ]  # fmt: skip


def test_what_is_written_counts_on_whichever_file_system(tmp_path: Path):
    before = moved_bytes()
    (tmp_path / "downloaded").write_bytes(bytes(3 << 20))
    assert moved_bytes() - before >= 3 << 20
