"""A machine's place among the machines that train one run together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunewheel_runtime.kafka import InvalidSetting


@dataclass(frozen=True, slots=True)
class Node:
    """Node ``rank`` of ``count``. All meet at ``master``, a name or address of node 0."""

    rank: int = 0
    count: int = 1
    master: str = "127.0.0.1"


ALONE = Node()


def node_of(count: int, environment: Mapping[str, str]) -> Node:
    """Return this pod's place among the ``count`` pods of an Indexed Job.

    ``JOB_COMPLETION_INDEX`` is Kubernetes' own; ``MASTER_ADDR`` stands in the Job. A pod that has neither
    index nor address is alone, whatever the setting says: its Job was made before the setting was raised.

    Raises:
        InvalidSetting: several nodes, and the environment does not say which one this is, or where they meet.
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
