"""Windows: every item in exactly one, whatever order a restart brings them in."""

from __future__ import annotations

import random
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st
from tunewheel_monitor.windows import Item, Silence, Stream, Window

AT = datetime(2026, 1, 1, tzinfo=UTC)


def item(n: int, *, partition: int = 0, bad: bool = False) -> Item:
    return Item(
        completion_id=f"c{partition}-{n}", model_id="m", partition=partition, offset=n, at=AT, bad=bad,
        event_id=f"e{partition}-{n}",
    )  # fmt: skip


def close_all(stream: Stream, size: int) -> list[Window]:
    closed: list[Window] = []
    while (window := stream.full(size)) is not None:
        stream.close(window, silence=Silence(), baseline=(0, 1))
        closed.append(window)
    return closed


def test_a_window_stays_open_until_it_is_closed():
    stream = Stream("p", "ds")
    for n in range(5):
        stream.absorb(item(n, bad=n == 1))
    assert stream.full(6) is None
    window = stream.full(4)
    assert window is not None
    assert stream.full(4) == window
    assert (window.number, window.bad, window.frontier) == (1, 1, {0: 4})
    stream.close(window, silence=Silence(), baseline=(0, 1))
    assert [i.offset for i in stream.pending] == [4]


def test_what_is_in_a_closed_window_or_waits_is_not_taken_again():
    stream = Stream("p", "ds", frontier={0: 3})
    assert not stream.absorb(item(2))
    assert stream.absorb(item(3))
    assert not stream.absorb(item(3))
    assert stream.absorb(item(0, partition=1))


@given(st.integers(1, 7), st.integers(0, 60), st.integers(0, 60), st.randoms(use_true_random=False))
def test_a_restart_anywhere_neither_loses_nor_doubles_an_item(
    size: int, count: int, crash: int, rng: random.Random
):
    queues = [[item(n, partition=p) for n in range(count // 3)] for p in range(3)]
    arrived = interleave(queues, rng)
    stream = Stream("p", "ds")
    windows: list[Window] = []
    for taken in arrived[:crash]:
        stream.absorb(taken)
        windows += close_all(stream, size)
    # The newest record is what survives; the log comes again from its beginning, interleaved otherwise.
    revived = Stream("p", "ds", closed=stream.closed, frontier=dict(stream.frontier))
    for taken in interleave(queues, rng):
        revived.absorb(taken)
        windows += close_all(revived, size)
    held = [i.completion_id for window in windows for i in window.items]
    waiting = [i.completion_id for i in revived.pending]
    assert sorted(held + waiting) == sorted(i.completion_id for i in arrived)
    assert [window.number for window in windows] == list(range(1, len(windows) + 1))


def interleave(queues: list[list[Item]], rng: random.Random) -> list[Item]:
    """Merge the partitions in some order; within each the log's order stays."""
    left = [list(queue) for queue in queues]
    merged: list[Item] = []
    while any(left):
        merged.append(rng.choice([queue for queue in left if queue]).pop(0))
    return merged


def test_an_alarm_is_open_until_enough_completions_in_a_row_were_calm():
    def judged(silence: Silence, *drifted: bool, cooldown: int = 0) -> Silence:
        for one in drifted:
            silence = silence.after("input", 20, drifted=one, cooldown=cooldown)
        return silence

    assert not Silence().binds("input")
    assert not judged(Silence(), False).binds("input")
    opened = judged(Silence(), True)
    assert opened.binds("input")
    assert not opened.binds("format")
    assert judged(opened, False, False).binds("input")
    assert not judged(opened, False, False, False).binds("input")
    assert judged(opened, False, False, True, False, False).binds("input"), "the shift went on"
    longer = judged(Silence(), True, cooldown=100)
    assert judged(longer, *[False] * 4, cooldown=100).binds("input")
    assert not judged(longer, *[False] * 5, cooldown=100).binds("input")
