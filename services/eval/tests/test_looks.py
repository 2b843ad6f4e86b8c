from __future__ import annotations

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.look import LOOKS, look_path
from tunewheel_eval.looks import Fresh, count_look, fresh_rows
from tunewheel_runtime.store import ObjectStore

PROJECT = "desk"


async def look(store: ObjectStore, examples: tuple[ChatExample, ...], name: str) -> Fresh:
    fresh = await fresh_rows(store, examples, project=PROJECT, scorecard_id=name)
    await count_look(store, fresh, project=PROJECT, scorecard_id=name)
    return fresh


async def test_a_repetition_is_no_second_look(store: ObjectStore, examples: tuple[ChatExample, ...]) -> None:
    assert (await look(store, examples, "card-a")).looks == 1
    assert (await look(store, examples, "card-b")).looks == 2
    again = await look(store, examples, "card-a")
    assert (again.looks, again.examples, again.spent) == (1, examples, 0)
    assert len(await store.list("looks")) == 2


async def test_rows_that_were_looked_at_ten_times_are_left_out(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    for number in range(LOOKS):
        await look(store, examples[:4], f"card-{number}")
    fresh = await look(store, examples, "card-new")
    assert (fresh.examples, fresh.looks, fresh.spent) == (examples[4:], 1, 4)
    # also where the process was killed after the look, and others looked in between
    await look(store, examples[4:], "card-other")
    assert await fresh_rows(store, examples, project=PROJECT, scorecard_id="card-new") == fresh


async def test_another_project_and_a_damaged_file_are_no_looks(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await count_look(store, Fresh(examples, 1, 0), project="other", scorecard_id="card-a")
    await store.put(look_path(PROJECT, "card-b"), b"{")
    assert (await look(store, examples, "card-c")).looks == 1


async def test_an_example_erased_after_the_look_is_not_missed(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await look(store, examples, "card-a")
    left = await fresh_rows(store, examples[1:], project=PROJECT, scorecard_id="card-a")
    assert (left.examples, left.spent) == (examples[1:], 0)
