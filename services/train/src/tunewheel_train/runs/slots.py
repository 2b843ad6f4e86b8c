"""Decides which run trains next on a machine: runs of turns before runs of sweeps, then the highest priority,
then the project with the fewest runs so far, then the first to arrive. Knows the rank of a machine among
those that train one run together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_runtime.waiting import first_of

from tunewheel_train.runs.runs import Run

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """Node ``rank`` of ``count``. All connect to ``master``, the name or address of node 0."""

    rank: int = 0
    count: int = 1
    master: str = "127.0.0.1"


ALONE = Node()


def node_of(count: int, environment: Mapping[str, str]) -> Node:
    """Return this pod's node among the ``count`` pods of an Indexed Job.

    Kubernetes sets ``JOB_COMPLETION_INDEX``; the Job sets ``MASTER_ADDR``. A pod with neither is alone: its
    Job was made before the setting was raised. Raises InvalidSetting: there are several nodes, but one of the
    two variables is missing.
    """
    index, master = environment.get("JOB_COMPLETION_INDEX", ""), environment.get("MASTER_ADDR", "")
    if count == 1 or (not index and not master):
        return ALONE
    if not index.isdigit() or int(index) >= count:
        raise InvalidSetting(
            "train_nodes",
            f"is {count}, but JOB_COMPLETION_INDEX is {index or 'missing'}; the pods of an Indexed Job of "
            f"{count} completions have it",
        )
    if not master:
        raise InvalidSetting("train_nodes", f"is {count}, but MASTER_ADDR, where they meet, is missing")
    return Node(int(index), count, master)


@dataclass(eq=False)
class _Waiting:
    project: str
    priority: int
    arrival: int
    is_tried: bool
    stop: asyncio.Event
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    slot: int | None = None


def devices_of(slot: int, *, processes: int, gpus: Sequence[str]) -> tuple[str, ...]:
    """Return the GPUs of ``slot``, one per process, as ``CUDA_VISIBLE_DEVICES`` names them. Slots share no
    GPU."""
    return tuple(gpus[slot * processes : (slot + 1) * processes])


class Slots:
    """``count`` runs train at once; each holds one of the slots 0 to count - 1."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._arrivals = 0
        self._waiting: list[_Waiting] = []
        self._held: list[_Waiting] = []
        self._served: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def hold(self, run: Run, lost: asyncio.Event) -> AsyncIterator[int | None]:
        """Wait for a slot, and hold it during the body. Yield its number; None: ``lost`` was set first. For a
        run of a sweep ``lost`` is set when a run of a turn needs its slot."""
        mine = _Waiting(
            run.project, run.recipe.priority, self._arrivals, is_tried=run.tried is not None, stop=lost
        )
        self._arrivals += 1
        self._waiting.append(mine)
        self._admit()
        if mine.slot is None:  # log it: there is no event about a run that waits
            log.info("run_waits", run_id=run.run_id, project=run.project, ahead=len(self._waiting) - 1)
            self._make_room()
        try:
            await first_of(mine.turn.wait(), lost.wait())
            yield mine.slot
        finally:
            if mine.slot is None:
                self._waiting.remove(mine)
            else:
                self._free.append(mine.slot)
                self._held.remove(mine)
            self._admit()

    def _admit(self) -> None:
        while self._free and self._waiting:
            chosen = min(self._waiting, key=self._rank)
            self._waiting.remove(chosen)
            chosen.slot = min(self._free)
            self._free.remove(chosen.slot)
            self._held.append(chosen)
            self._served[chosen.project] += not chosen.is_tried
            chosen.turn.set()

    def _make_room(self) -> None:
        """Stop a run of a sweep for each run of a turn that waits. It goes on from its checkpoint later."""
        wanted = sum(not waiting.is_tried for waiting in self._waiting)
        for holder in [one for one in self._held if one.is_tried][:wanted]:
            holder.stop.set()

    def _rank(self, waiting: _Waiting) -> tuple[bool, int, int, int]:
        return waiting.is_tried, -waiting.priority, self._served[waiting.project], waiting.arrival
