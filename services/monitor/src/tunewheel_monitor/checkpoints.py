"""Stores a project's state after each batch in the object store.

``monitor/<project>/state/<number>.json`` holds the state after a batch and the events to publish. Numbers
increase, and each object is created once. If two processes continue from the same checkpoint, only one can
create the next one. The other finds the number taken, or finds later numbers. It then drops its state and
reads again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.store import ArtifactConflict, CorruptArtifact, ObjectStore

from tunewheel_monitor.reference import ENCODINGS
from tunewheel_monitor.state import ProjectState

FORMAT = 1
FIRST = (
    "drift.detected",
    "alarm.opened",
    "drift.resolved",
    "labels.requested",
    "comparisons.requested",
    "rollout.judged",
    "turn.completed",
)
"""The types of events that the first release with this format knew. Others are written apart from these,
since a release that does not know a type must still read the checkpoint after a rollback."""
KEPT = 3
"""How many checkpoints of a project are kept: a reader of the newest one must find it while another is
written."""


class Overtaken(TransientError):
    """Another process has continued the project. The state in this process is out of date."""


@dataclass(slots=True)
class Checkpoint:
    """A project's state. ``number`` 0: nothing was written yet."""

    project: str
    number: int
    state: ProjectState
    events: Sequence[Envelope[Any]] = ()
    """The events that followed from the last batch."""
    unreadable: str = ""
    """Why the newest checkpoint cannot be read, and what the state is then; empty: it can be read."""


class Checkpoints:
    """Reads and writes checkpoints. All methods raise ``TransientError`` if the store cannot be reached."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def latest(self, project: str) -> Checkpoint:
        """Return the newest checkpoint; an empty one before the first.

        If the newest one is damaged, or of a later release, return the state of the newest readable one, or
        an empty state, under the newest number: one project's checkpoint must not stop the others.
        """
        paths = await self._store.list(_folder(project))
        if not paths:
            return Checkpoint(project, 0, ProjectState())
        reasons: list[str] = []
        for path in reversed(paths):
            data = await self._store.read(path)
            if data is None:
                raise Overtaken(f"{path} has just been replaced")
            try:
                found = _decoded(project, path, data)
            except CorruptArtifact as error:
                reasons.append(str(error))
                continue
            return replace(found, number=_number(paths[-1]), unreadable=_told(project, reasons, path))
        return Checkpoint(project, _number(paths[-1]), ProjectState(), unreadable=_told(project, reasons))

    async def write(self, checkpoint: Checkpoint) -> None:
        """Write ``checkpoint``. Its number is one more than that of the checkpoint that it continues.

        Raises:
            Overtaken: another process wrote that number, or later ones.
        """
        path = _path(checkpoint.project, checkpoint.number)
        try:
            await self._store.put(path, _encoded(checkpoint))
        except ArtifactConflict as error:
            raise Overtaken(f"another monitor has gone on with {checkpoint.project}") from error
        paths = await self._store.list(_folder(checkpoint.project))
        if paths and paths[-1] > path:  # the number was used long ago, and its checkpoint was deleted since
            await self._store.delete([path])
            raise Overtaken(f"another monitor went on with {checkpoint.project} long ago")
        oldest = _path(checkpoint.project, checkpoint.number - KEPT + 1)
        await self._store.delete([one for one in paths if one < oldest])

    async def drop_before(self, project: str, number: int) -> None:
        """Delete all checkpoints before ``number``, and the encoded references, because an erasure must leave
        none of them."""
        await self._store.delete(await self._store.list(f"monitor/{project}/{ENCODINGS}"))
        keep = _path(project, number)
        await self._store.delete([path for path in await self._store.list(_folder(project)) if path < keep])


def _folder(project: str) -> str:
    return f"monitor/{project}/state"


def _path(project: str, number: int) -> str:
    return f"{_folder(project)}/{number:012d}.json"


def _number(path: str) -> int:
    return int(path.rsplit("/", 1)[1].removesuffix(".json"))


def _told(project: str, reasons: Sequence[str], path: str = "") -> str:
    state = f"the state of {path}" if path else "an empty state: baselines and open alarms are lost"
    return f"{'; '.join(reasons)}. {project} goes on with {state}" if reasons else ""


def _encoded(checkpoint: Checkpoint) -> bytes:
    events: list[dict[str, Any]] = [
        {
            "type": event.data.type,
            "id": event.id,
            "source": event.source,
            "time": event.time.isoformat(),
            "causation_id": event.causation_id,
            "correlation_id": event.correlation_id,
            "data": event.data.model_dump(mode="json"),
        }
        for event in checkpoint.events
    ]
    told = {
        "format": FORMAT,
        "number": checkpoint.number,
        "state": checkpoint.state.as_json(),
        "events": [event for event in events if event["type"] in FIRST],
        "more_events": [event for event in events if event["type"] not in FIRST],
    }
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def _decoded(project: str, path: str, data: bytes) -> Checkpoint:
    try:
        told = json.loads(data)
        if told["format"] != FORMAT:
            raise CorruptArtifact(f"{path} is of format {told['format']}; this release reads {FORMAT}")
        state = ProjectState.from_json(told["state"])
        more = [event for event in told.get("more_events", ()) if event["type"] in BY_NAME]
        return Checkpoint(project, told["number"], state, tuple(map(_event, [*told["events"], *more])))
    except (InvalidEvent, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CorruptArtifact(f"{path} is no checkpoint of the monitor: {error!r}") from error


def _event(told: dict[str, Any]) -> Envelope[Any]:
    return Envelope(
        data=decode_data(BY_NAME[told["type"]].event, json.dumps(told["data"]).encode()),
        source=told["source"],
        id=told["id"],
        time=datetime.fromisoformat(told["time"]),
        causation_id=told["causation_id"],
        correlation_id=told["correlation_id"],
    )
