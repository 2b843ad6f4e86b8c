"""What nodes tell each other by the object store. The nodes are tasks, their processes futures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_runtime.jobs import LeaseLost
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.waiting import until
from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.progress import Completed, Failed, Stopped
from tunewheel_train.runs import tries
from tunewheel_train.runs.following import Follower
from tunewheel_train.runs.process import ProcessDied
from tunewheel_train.runs.slots import Node
from tunewheel_train.runs.tries import Tries

DONE = Completed(steps=6, tokens=1, wall_seconds=1.0, dtype="float32", metrics={}, versions={})
NO_MEMORY = Failed(field="train.micro_batch_size", reason="does not fit", out_of_memory=True)


def job_at(place: str, rank: int = 4) -> Job:
    path = Path(f"/{place}")
    return Job(
        run_id="run-1", base_model="m", base_revision=f"of {place}", train_path=path, output_dir=path,
        work_dir=path, cache_dir=path, recipe=TrainSpec(rank=rank),
    )  # fmt: skip


class Machine:
    """A node's processes: what they were given, and how they end."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.ends: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.killed = 0

    async def train(self, job: Job) -> Any:
        self.jobs.append(job)
        try:
            return await self.ends
        except asyncio.CancelledError:
            self.killed += 1
            self.ends = asyncio.get_running_loop().create_future()
            raise

    def end(self, how: object) -> None:
        ending, self.ends = self.ends, asyncio.get_running_loop().create_future()
        if isinstance(how, BaseException):
            ending.set_exception(how)
        else:
            ending.set_result(how)


class Nodes:
    """The nodes of one launch; ``machines`` are their processes."""

    def __init__(self, count: int = 2) -> None:
        self.store = ObjectStore("memory:")
        self.machines = [Machine() for _ in range(count)]
        self.stop = asyncio.Event()
        self.prepared: Callable[[Job], Job] = lambda said: job_at("1")

    def pod(self, rank: int) -> Tries:
        return Tries(self.store, "launches/x", Node(rank, len(self.machines)), every=0.001)

    def lead(self, job: Job, pod: Tries | None = None, machine: Machine | None = None) -> asyncio.Task[Any]:
        own, processes = pod or self.pod(0), machine or self.machines[0]
        return asyncio.create_task(own.lead(job, self.stop, lambda: processes.train(job)))

    def follow(
        self,
        rank: int = 1,
        *,
        stop: asyncio.Event | None = None,
        pod: Tries | None = None,
        machine: Machine | None = None,
    ) -> asyncio.Task[None]:
        async def prepare(said: Job) -> Job:
            return self.prepared(said)

        train = (machine or self.machines[rank]).train
        own = pod or self.pod(rank)
        follower = Follower(own, stop or asyncio.Event(), prepare=prepare, train=train)
        return asyncio.create_task(follower.follow())

    async def exists(self, path: str) -> None:
        async with asyncio.timeout(60):
            while not await self.store.exists(f"launches/x/tries/{path}"):
                await asyncio.sleep(0.001)

    async def all_train(self, times: int = 1) -> None:
        await until_all_train(*self.machines, times=times)

    async def end(self) -> None:
        await self.store.put("launches/x/outcome.json", b"{}")


async def until_all_train(*machines: Machine, times: int = 1) -> None:
    await until(lambda: all(len(machine.jobs) >= times for machine in machines))


async def test_node_0_waits_for_the_others_and_says_how_all_train():
    nodes = Nodes()
    leading = nodes.lead(job_at("0", rank=8))
    await asyncio.sleep(0.05)
    assert nodes.machines[0].jobs == []  # a pod that finds no room yet is no death
    following = nodes.follow()
    await nodes.all_train()
    (own,) = nodes.machines[1].jobs
    assert (own.recipe.rank, own.base_revision, own.work_dir) == (8, "of 0", Path("/1"))
    nodes.machines[1].end(DONE)
    nodes.machines[0].end(DONE)
    assert await leading == DONE
    await nodes.end()
    await following


async def test_no_node_starts_its_processes_before_all_have_come():
    nodes = Nodes(3)
    leading, first = nodes.lead(job_at("0")), nodes.follow(1)
    await nodes.exists("000001/joined.1")
    await asyncio.sleep(0.05)
    assert [machine.jobs for machine in nodes.machines] == [[], [], []]  # they would wait, and give up
    second = nodes.follow(2)
    await nodes.all_train()
    nodes.machines[0].end(DONE)
    assert await leading == DONE
    await nodes.end()
    await asyncio.gather(first, second)


async def test_a_process_that_is_killed_ends_the_try_on_all_nodes_and_the_next_is_joined_by_all():
    nodes = Nodes()
    leading, following = nodes.lead(job_at("0")), nodes.follow()
    await nodes.all_train()
    nodes.machines[1].end(ProcessDied(-9, ""))
    with pytest.raises(ProcessDied, match=r"node 1: .* signal 9"):
        await leading
    assert nodes.machines[0].killed == 1
    leading = nodes.lead(job_at("0"))
    await nodes.all_train(times=2)
    nodes.machines[0].end(ProcessDied(-9, ""))
    nodes.machines[1].end(ProcessDied(1, "connection reset"))
    with pytest.raises(ProcessDied, match="signal 9"):  # this node's own, which came first
        await leading
    leading = nodes.lead(job_at("0"))
    await nodes.all_train(times=3)
    nodes.machines[0].end(DONE)
    assert await leading == DONE
    await nodes.end()
    await following
    assert nodes.machines[1].killed == 1  # it hung; the launch has its outcome


async def test_what_another_nodes_processes_failed_by_is_the_cause_of_this_ones_death():
    nodes = Nodes()
    leading, following = nodes.lead(job_at("0")), nodes.follow()
    await nodes.all_train()
    nodes.machines[0].end(ProcessDied(1, "connection reset"))
    nodes.machines[1].end(NO_MEMORY)
    assert await leading == NO_MEMORY
    await nodes.end()
    await following


async def test_a_node_that_cannot_prepare_says_why_and_the_run_may_be_tried_again():
    def prepared(said: Job) -> Job:
        raise RunFailed(field="base_model", reason="the hub is away")

    nodes = Nodes()
    nodes.prepared = prepared
    leading, following = nodes.lead(job_at("0")), nodes.follow()
    with pytest.raises(ProcessDied, match="node 1: base_model: the hub is away"):
        await leading  # no Failed: that would fail the run for good, and delete its checkpoints
    await nodes.end()
    await following
    assert nodes.machines[0].jobs == []


async def test_a_pod_in_the_place_of_one_that_vanished_ends_the_try_that_waits_for_it():
    nodes = Nodes()
    leading, vanished = nodes.lead(job_at("0")), nodes.follow()
    await nodes.all_train()
    vanished.cancel()
    following = nodes.follow()
    assert await leading is None  # no death of the run
    leading = nodes.lead(job_at("0"))
    await nodes.all_train(times=2)
    nodes.machines[0].end(Stopped(step=4))
    assert await leading == Stopped(step=4)
    await nodes.end()
    await following


async def test_another_node_0_is_followed_and_the_processes_of_the_old_try_are_killed():
    nodes = Nodes()
    vanished, following = nodes.lead(job_at("0")), nodes.follow()
    await nodes.all_train()
    vanished.cancel()
    await asyncio.gather(vanished, return_exceptions=True)
    assert nodes.machines[1].killed == 0  # it waits for what node 0 will not send
    leading = nodes.lead(job_at("0"))
    await nodes.all_train(times=2)
    assert nodes.machines[1].killed == 1
    nodes.machines[0].end(DONE)
    assert await leading == DONE
    await nodes.end()
    await following


async def test_a_run_that_is_stopped_while_it_waits_for_a_node_starts_nothing():
    nodes = Nodes()
    leading = nodes.lead(job_at("0"))
    await asyncio.sleep(0.01)
    nodes.stop.set()
    assert await leading is None
    assert nodes.machines[0].jobs == []


async def test_what_failed_on_any_node_comes_before_the_deaths_that_it_caused():
    nodes = Nodes(3)
    leading, following = nodes.lead(job_at("0")), [nodes.follow(1), nodes.follow(2)]
    await nodes.all_train()
    nodes.machines[1].end(ProcessDied(1, "connection reset"))
    await nodes.exists("000001/lost.1.json")
    await asyncio.sleep(0.05)
    assert not leading.done()
    nodes.machines[2].end(NO_MEMORY)
    assert await leading == NO_MEMORY
    await nodes.end()
    await asyncio.gather(*following)


async def test_one_node_that_died_is_waited_for_no_longer_than_the_last_words_take(monkeypatch):
    monkeypatch.setattr(tries, "LAST_WORDS_SECONDS", 0.01)
    nodes = Nodes(3)
    leading, following = nodes.lead(job_at("0")), [nodes.follow(1), nodes.follow(2)]
    await nodes.all_train()
    nodes.machines[1].end(ProcessDied(-9, ""))
    with pytest.raises(ProcessDied, match=r"node 1: .* signal 9"):
        await leading
    await nodes.end()
    await asyncio.gather(*following)


async def test_a_follower_that_is_told_to_end_before_all_have_come_costs_nothing():
    nodes, stop = Nodes(3), asyncio.Event()
    leading, going = nodes.lead(job_at("0")), nodes.follow(1, stop=stop)
    await nodes.exists("000001/joined.1")
    stop.set()
    await going
    assert await leading is None
    assert [machine.jobs for machine in nodes.machines] == [[], [], []]


async def test_a_follower_whose_processes_die_because_it_is_to_end_costs_nothing():
    nodes, stop = Nodes(), asyncio.Event()
    leading, going = nodes.lead(job_at("0")), nodes.follow(stop=stop)
    await nodes.all_train()
    stop.set()
    nodes.machines[0].end(ProcessDied(1, "connection reset"))
    nodes.machines[1].end(ProcessDied(-9, ""))
    assert await leading is None
    await going


async def test_a_follower_that_is_told_to_end_while_it_prepares_joins_no_more():
    nodes, stop = Nodes(), asyncio.Event()

    def prepared(said: Job) -> Job:
        stop.set()
        return job_at("1")

    nodes.prepared = prepared
    leading, going = nodes.lead(job_at("0")), nodes.follow(stop=stop)
    await going
    assert not await nodes.store.exists("launches/x/tries/000001/joined.1")
    following = nodes.follow()
    nodes.prepared = lambda said: job_at("1")
    await nodes.all_train()
    nodes.machines[0].end(DONE)
    assert await leading == DONE
    await nodes.end()
    await following


async def test_a_process_that_joined_before_the_store_was_away_takes_up_the_same_try():
    nodes = Nodes(3)
    pod = nodes.pod(1)
    leading, first = nodes.lead(job_at("0")), nodes.follow(1, pod=pod)
    await nodes.exists("000001/joined.1")
    first.cancel()  # as a TransientError does, behind which it follows again
    following = [nodes.follow(1, pod=pod), nodes.follow(2)]
    await nodes.all_train()
    nodes.machines[0].end(DONE)
    assert await leading == DONE
    await nodes.end()
    await asyncio.gather(*following)


async def test_the_nodes_that_a_run_waits_for_are_logged_once_a_minute():
    nodes = Nodes(3)
    with capture_logs() as logs:
        leading = nodes.lead(job_at("0"))
        await until(lambda: any(line["event"] == "nodes_awaited" for line in logs))
        await asyncio.sleep(0.05)
        leading.cancel()
    awaited = [line["missing"] for line in logs if line["event"] == "nodes_awaited"]
    assert awaited == [[1, 2]]


async def test_of_two_pods_that_lead_the_one_that_came_last_stays():
    """The first one's node was lost to the cluster, and lives."""
    nodes, cut_off = Nodes(), Machine()
    lost = nodes.pod(0)
    leading, following = nodes.lead(job_at("0"), lost, cut_off), nodes.follow()
    await until_all_train(cut_off, nodes.machines[1])
    newer = nodes.lead(job_at("0"))
    with pytest.raises(LeaseLost, match="another pod"):
        await leading
    assert cut_off.killed == 1
    async with asyncio.timeout(60):
        with pytest.raises(LeaseLost, match="another pod"):  # however often it asks
            await nodes.lead(job_at("0"), lost, cut_off)
    await nodes.all_train()
    nodes.machines[0].end(DONE)
    assert await newer == DONE
    await nodes.end()
    await following
    assert len(cut_off.jobs) == 1


async def test_two_pods_that_begin_a_try_at_once_begin_two():
    nodes = Nodes()
    both = nodes.lead(job_at("0")), nodes.lead(job_at("0"))  # the same job: only the pod differs
    await nodes.exists("000002/job.json")
    (first,), (second,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    assert isinstance(first.exception(), LeaseLost)
    nodes.stop.set()
    assert await second is None


async def test_a_death_that_another_leader_caused_is_none_of_the_run():
    nodes, cut_off = Nodes(), Machine()
    leading, following = nodes.lead(job_at("0"), machine=cut_off), nodes.follow()
    await until_all_train(cut_off, nodes.machines[1])
    cut_off.end(ProcessDied(1, "connection reset"))
    newer = nodes.lead(job_at("0"))
    with pytest.raises(LeaseLost):
        await leading
    await nodes.all_train()
    nodes.machines[0].end(DONE)
    assert await newer == DONE
    await nodes.end()
    await following


async def test_of_two_pods_that_follow_the_one_that_came_last_stays():
    nodes, cut_off = Nodes(), Machine()
    leading, lost = nodes.lead(job_at("0")), nodes.follow(machine=cut_off)
    await until_all_train(cut_off, nodes.machines[0])
    pod = nodes.pod(1)
    newer = nodes.follow(pod=pod)
    assert await leading is None  # no death of the run
    newer.cancel()  # the older one is quicker to join the next try, and must not
    leading = nodes.lead(job_at("0"))
    async with asyncio.timeout(60):
        with pytest.raises(LeaseLost, match="another pod"):
            await lost
    newer = nodes.follow(pod=pod)
    await until_all_train(nodes.machines[1])
    await until_all_train(nodes.machines[0], times=2)
    nodes.machines[0].end(DONE)
    assert await leading == DONE
    await nodes.end()
    await newer
    assert (len(cut_off.jobs), cut_off.killed) == (1, 1)


async def test_a_leader_stops_when_the_launch_has_ended_without_it():
    nodes = Nodes()
    pod = nodes.pod(0)
    leading, following = nodes.lead(job_at("0"), pod), nodes.follow()
    await nodes.all_train()
    await nodes.end()
    with pytest.raises(LeaseLost, match="the launch has ended"):
        await leading
    await following
    assert [machine.killed for machine in nodes.machines] == [1, 1]
    await nodes.store.delete(await nodes.store.list("launches/x/tries"))  # as who waits for the outcome does
    with pytest.raises(LeaseLost, match="the launch has ended"):
        await nodes.lead(job_at("0"), pod)
