"""A launch: a run or a sweep that is trained in another process. Event and outcome are passed through the
object store.

- ``launches/<name>/event.json``: the event that asked for it
- ``launches/<name>/outcome.json``: how it ended
- ``launches/<name>/told``: the outcome is on the log

Each object is written once. The name follows from the event's position on the log. So a process that handles
the event again, after a kill or on another machine, finds the launch that is under way. An event that is
published again is a new launch, unless a launch of it is still under way.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import SweepProgressed, SweepRequested, TrainCompleted, TrainFailed
from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.runs.tries import OUTCOME, TRIES

Asked = Envelope[DatasetVersioned] | Envelope[SweepRequested]
"""An event that asks for a run or for a sweep."""
_EVENT: TypeAdapter[Asked] = TypeAdapter(Asked)


class Refused(Frozen):
    """The event does not fit the manifest that it points to, and becomes a dead letter."""

    field: str
    reason: str


class Outcome(Frozen):
    """How a launch ended: exactly one of these."""

    completed: TrainCompleted | None = None
    failed: TrainFailed | None = None
    swept: SweepProgressed | None = None
    refused: Refused | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """``name`` is also the name of its Job: up to 63 lower-case letters, digits and hyphens (RFC 1123)."""

    name: str
    event: Asked

    @property
    def prefix(self) -> str:
        """The path prefix of all its objects."""
        return f"launches/{self.name}"

    async def put(self, store: ObjectStore) -> None:
        await store.first(f"{_index(self.event)}/{self.name}", b"")
        await store.first(_event_path(self.name), _EVENT.dump_json(self.event))

    async def is_told(self, store: ObjectStore) -> bool:
        """Return whether its outcome is on the log. Publishing an old outcome again would make it the
        latest."""
        return await store.read(f"launches/{self.name}/told") is not None

    async def note_told(self, store: ObjectStore) -> None:
        await store.first(f"launches/{self.name}/told", b"")

    async def delete_tries(self, store: ObjectStore) -> None:
        """Delete the notes of its pods (``runs/tries.py``), once it has ended."""
        await store.delete(await store.list(f"{self.prefix}/{TRIES}"))

    async def outcome(self, store: ObjectStore) -> Outcome | None:
        """Return its outcome; None: it has not ended."""
        return await store.document(_outcome_path(self.name), Outcome)

    async def end(self, store: ObjectStore, outcome: Outcome) -> Outcome:
        """Store its outcome, unless there is one; return the stored one."""
        return await store.first_document(_outcome_path(self.name), outcome)


def launch_of(event: Asked, lease: Lease) -> Launch:
    place = {"event": event.id, "partition": lease.partition[1], "offset": lease.offset}
    return Launch(f"tunewheel-train-{content_sha256(place)[:20]}", event)


async def under_way(store: ObjectStore, event: Asked) -> Launch | None:
    """Return the launch of ``event`` that has not ended, if there is one. Two Jobs of one run would delete
    each other's checkpoints."""
    for path in await store.list(_index(event)):
        launch = Launch(path.rpartition("/")[2], event)
        if await launch.outcome(store) is None:
            return launch
    return None


async def read_launch(store: ObjectStore, name: str) -> Launch | None:
    """Return the launch of that name; None: it does not exist."""
    data = await store.read(_event_path(name))
    if data is None:
        return None
    return Launch(name, _EVENT.validate_json(data))


def _index(event: Asked) -> str:
    return f"launches/of/{event.id}"


def _event_path(name: str) -> str:
    return f"launches/{name}/event.json"


def _outcome_path(name: str) -> str:
    return f"launches/{name}/{OUTCOME}"
