"""After an erasure nobody can tell whose the scores on the log were."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_monitor.pseudonym_keys import PseudonymKeys
from tunewheel_runtime.store import ObjectStore


async def nothing_new() -> None:
    """The log was read to its end."""


def process(folder: Path, refresh: Callable[[], Awaitable[None]] = nothing_new) -> PseudonymKeys:
    return PseudonymKeys(ObjectStore(folder.as_uri()), Erasures(), refresh)


def erase(keys: PseudonymKeys, **subject: str) -> None:
    data = ErasureRequested.model_validate(
        {"project": "desk", "erasure_id": "letter", "requested_by": "privacy"} | subject
    )
    keys.erasures.apply(new_event(data, source="/test"))


def kept(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in (folder / "monitor/desk/pseudonyms").iterdir()]


async def test_an_erasure_destroys_the_key_and_users_have_other_pseudonyms_from_then_on(
    tmp_path: Path,
) -> None:
    first, second = process(tmp_path), process(tmp_path)
    before = (await first.of("desk")).of("user", "Ann")
    assert (await second.of("desk")).of("user", "Ann") == before
    for keys in (first, second):
        erase(keys, customer="Ann")
    await first.destroy("desk")
    after = (await first.of("desk")).of("user", "Ann")
    assert (await second.of("desk")).of("user", "Ann") == after != before
    assert [Pseudonyms("desk", key.hex()).of("user", "Ann") for key in kept(tmp_path)] == [after]
    assert (await first.of("shop")).of("user", "Ann") not in (before, after), "another project, another key"


async def test_an_erased_source_is_no_user(tmp_path: Path) -> None:
    keys = process(tmp_path)
    before = (await keys.of("desk")).of("user", "Ann")
    erase(keys, source_id="ticket-1")
    await keys.destroy("desk")
    assert (await keys.of("desk")).of("user", "Ann") == before


async def test_a_process_that_learns_late_of_an_erasure_leaves_no_key_from_before_it(tmp_path: Path) -> None:
    quick = process(tmp_path)
    erase(quick, customer="Ann")
    reads = 0

    async def refresh() -> None:
        nonlocal reads
        reads += 1
        if reads == 2:  # the slow process has made a key by then, and the quick one looked for it before
            erase(slow, customer="Ann")

    slow = process(tmp_path, refresh)
    await quick.destroy("desk")
    late = await slow.of("desk")
    assert late.check == (await quick.of("desk")).check
    assert len(kept(tmp_path)) == 1
