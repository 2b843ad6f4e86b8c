from __future__ import annotations

import pytest
from tunewheel_contracts.formats.criteria import LOOKS
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.look import Look, look_path
from tunewheel_eval.looks import Fresh, Looks
from tunewheel_runtime.store import ObjectStore

PROJECT = "desk"


async def look(store: ObjectStore, examples: tuple[ChatExample, ...], name: str, of: int = LOOKS) -> Fresh:
    looks = Looks(store)
    fresh = await looks.fresh(examples, project=PROJECT, scorecard_id=name, of=of)
    assert await looks.take(fresh, project=PROJECT, scorecard_id=name, of=of) == fresh
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
    assert await Looks(store).fresh(examples, project=PROJECT, scorecard_id="card-new", of=LOOKS) == fresh


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
        await looks.fresh(examples, project=PROJECT, scorecard_id=n, of=LOOKS)
        for looks, n in ((one, "a"), (two, "b"))
    ]
    assert [fresh.examples for fresh in wants] == [examples, examples]
    first = await one.take(wants[0], project=PROJECT, scorecard_id="a", of=LOOKS)
    second = await two.take(wants[1], project=PROJECT, scorecard_id="b", of=LOOKS)
    assert (first.examples, first.spent) == (examples, 0)
    assert (second.examples, second.spent) == (examples[4:], 4)
    assert await two.take(wants[1], project=PROJECT, scorecard_id="b", of=LOOKS) == second


async def test_a_process_reads_each_look_once(store: ObjectStore, examples: tuple[ChatExample, ...]) -> None:
    counting = Counting(store.url)
    for number in range(5):
        await look(store, examples, f"card-{number}")
    looks = Looks(counting)
    assert (await looks.fresh(examples, project=PROJECT, scorecard_id="card-new", of=LOOKS)).looks == 6
    before = counting.reads
    assert before == 6  # its own, which is not there, and the five
    assert (await looks.fresh(examples, project=PROJECT, scorecard_id="card-newer", of=LOOKS)).looks == 6
    assert counting.reads == before + 1


async def test_another_project_and_a_damaged_file_are_no_looks(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await Looks(store).take(Fresh(examples, 1, 0), project="other", scorecard_id="card-a", of=LOOKS)
    await store.put(look_path(PROJECT, "card-b"), b"{")
    assert (await look(store, examples, "card-c")).looks == 1


async def test_an_example_erased_after_the_look_is_not_missed(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    await look(store, examples, "card-a")
    left = await Looks(store).fresh(examples[1:], project=PROJECT, scorecard_id="card-a", of=LOOKS)
    assert (left.examples, left.spent) == (examples[1:], 0)


async def test_looks_of_an_earlier_release_count_for_all_rows_of_their_groups(
    store: ObjectStore, examples: tuple[ChatExample, ...]
) -> None:
    groups = tuple(sorted({one.group for one in examples[:4]}))
    for number in range(LOOKS - 1):
        before = {"project": PROJECT, "scorecard_id": f"card-{number}", "groups": groups, "looks": number + 1}
        await store.put(
            look_path(PROJECT, f"card-{number}"), Look.model_validate(before).model_dump_json().encode()
        )
    assert (await look(store, examples, "card-tenth")).looks == LOOKS
    fresh = await look(store, examples, "card-eleventh")
    assert fresh.examples == tuple(one for one in examples if one.group not in groups)


async def test_a_row_of_a_customer_rests_alone(store: ObjectStore, examples: tuple[ChatExample, ...]) -> None:
    """A build retired one row; its customer has another."""
    alike = (examples[0], examples[1].model_copy(update={"group": examples[0].group}))
    build = Look(project=PROJECT, scorecard_id="build-1", rows=alike[0].record_ids, looks=1, of=1, counted=3)
    await store.put(look_path(PROJECT, "build-1"), build.model_dump_json().encode())
    fresh = await look(store, alike, "card-a")
    assert (fresh.examples, fresh.spent, fresh.looks) == (alike[1:], 1, 1)


@pytest.mark.parametrize(("first", "second"), [(10, 4), (4, 10), (2, 3)])
async def test_what_a_look_spends_is_what_was_declared_when_it_was_taken(
    store: ObjectStore, examples: tuple[ChatExample, ...], first: int, second: int
) -> None:
    for number in range(first // 2):
        await look(store, examples, f"first-{number}", of=first)
    taken = 0
    while (await look(store, examples, f"second-{taken}", of=second)).examples:
        taken += 1
    assert taken == second // 2
