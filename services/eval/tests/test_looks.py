from __future__ import annotations

from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.look import LOOKS, look_path
from tunewheel_eval.looks import Fresh, Looks
from tunewheel_runtime.store import ObjectStore

PROJECT = "desk"


async def look(store: ObjectStore, examples: tuple[ChatExample, ...], name: str) -> Fresh:
    looks = Looks(store)
    fresh = await looks.fresh(examples, project=PROJECT, scorecard_id=name)
    assert await looks.take(fresh, project=PROJECT, scorecard_id=name) == fresh
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
    assert await Looks(store).fresh(examples, project=PROJECT, scorecard_id="card-new") == fresh


class Counting(ObjectStore):
    """Counts what is read."""

    reads = 0

    async def read(self, path: str) -> bytes | None:
        self.reads += 1
        return await super().read(path)


async def test_of_two_evaluations_at_once_that_want_the_tenth_look_at_most_one_gets_it(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    for number in range(LOOKS - 1):
        await look(store, examples[:4], f"card-{number}")
    one, two = Looks(store), Looks(store)  # two processes
    wants = [
        await looks.fresh(examples, project=PROJECT, scorecard_id=n) for looks, n in ((one, "a"), (two, "b"))
    ]
    assert [fresh.examples for fresh in wants] == [examples, examples]
    first = await one.take(wants[0], project=PROJECT, scorecard_id="a")
    second = await two.take(wants[1], project=PROJECT, scorecard_id="b")
    assert (first.examples, first.spent) == (examples, 0)
    assert (second.examples, second.spent) == (examples[4:], 4)
    assert await two.take(wants[1], project=PROJECT, scorecard_id="b") == second


async def test_a_process_reads_each_look_once(store: ObjectStore, examples: tuple[ChatExample, ...]) -> None:
    counting = Counting(store.url)
    for number in range(5):
        await look(store, examples, f"card-{number}")
    looks = Looks(counting)
    assert (await looks.fresh(examples, project=PROJECT, scorecard_id="card-new")).looks == 6
    before = counting.reads
    assert before == 6  # its own, which is not there, and the five
    assert (await looks.fresh(examples, project=PROJECT, scorecard_id="card-newer")).looks == 6
    assert counting.reads == before + 1


async def test_another_project_and_a_damaged_file_are_no_looks(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await Looks(store).take(Fresh(examples, 1, 0), project="other", scorecard_id="card-a")
    await store.put(look_path(PROJECT, "card-b"), b"{")
    assert (await look(store, examples, "card-c")).looks == 1


async def test_an_example_erased_after_the_look_is_not_missed(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await look(store, examples, "card-a")
    left = await Looks(store).fresh(examples[1:], project=PROJECT, scorecard_id="card-a")
    assert (left.examples, left.spent) == (examples[1:], 0)
