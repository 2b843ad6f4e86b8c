"""The GPUs of a slot of this machine, and the rank of a machine among those that train one run together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tunewheel_runtime.kafka import InvalidSetting


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


def devices_of(slot: int, *, processes: int, gpus: Sequence[str]) -> tuple[str, ...]:
    """Return the GPUs of ``slot``, one per process, as ``CUDA_VISIBLE_DEVICES`` names them. Slots share no
    GPU."""
    return tuple(gpus[slot * processes : (slot + 1) * processes])
