from __future__ import annotations

import threading

from tunewheel_train.heartbeat import Heartbeat


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
