"""A project's state between batches, in the object store.

``monitor/<project>/state/<number>.json`` holds the state after a batch and the events to publish. Numbers
count up and each is created once. So of two processes that go on from the same one only one can: the other
finds its number taken, or later ones beside it, drops what it held and reads again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.store import ArtifactConflict, CorruptArtifact, ObjectStore

from tunewheel_monitor.pseudonym_keys import FOLDER as PSEUDONYMS
from tunewheel_monitor.state import ProjectState

FORMAT = 1
KEPT = 3
"""Checkpoints of a project that stay: whoever reads the newest must find it while another one is written."""


class Overtaken(TransientError):
    """Another process has gone on with the project: what is held here is old."""


@dataclass(slots=True)
class Checkpoint:
    """``number`` 0: nothing was written yet."""

    project: str
    number: int
    state: ProjectState
    events: Sequence[Envelope[Any]] = ()
    """What followed from the batch before."""


class Checkpoints:
    """All raise ``TransientError`` where the store cannot be reached."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def latest(self, project: str) -> Checkpoint:
        """Return the newest checkpoint; an empty one before the first.

        Raises:
            CorruptArtifact: the newest is no checkpoint. Remove it only if the windows since the one before
                may be lost.
        """
        paths = await self._store.list(_folder(project))
        if not paths:
            await self._drop_window_records(project)
            return Checkpoint(project, 0, ProjectState())
        data = await self._store.read(paths[-1])
        if data is None:
            raise Overtaken(f"{paths[-1]} has just been replaced")
        return _decoded(project, paths[-1], data)

    async def write(self, checkpoint: Checkpoint) -> None:
        """Write ``checkpoint``, whose number follows the one that its state was read from.

        Raises:
            Overtaken: another process wrote that number, or later ones.
        """
        path = _path(checkpoint.project, checkpoint.number)
        try:
            await self._store.put(path, _encoded(checkpoint))
        except ArtifactConflict as error:
            raise Overtaken(f"another monitor has gone on with {checkpoint.project}") from error
        paths = await self._store.list(_folder(checkpoint.project))
        if paths and paths[-1] > path:  # the number was free since it was taken long ago, and pruned
            await self._store.delete([path])
            raise Overtaken(f"another monitor went on with {checkpoint.project} long ago")
        oldest = _path(checkpoint.project, checkpoint.number - KEPT + 1)
        await self._store.delete([one for one in paths if one < oldest])

    async def drop_before(self, project: str, number: int) -> None:
        """Remove what lies before ``number``: an erasure leaves no earlier state."""
        await self._drop_window_records(project)
        keep = _path(project, number)
        await self._store.delete([path for path in await self._store.list(_folder(project)) if path < keep])

    async def _drop_window_records(self, project: str) -> None:
        """Remove the records of windows that earlier releases wrote: nobody reads them any more."""
        for folder in await self._store.folders(f"monitor/{project}"):
            if folder not in ("state", "alarms", PSEUDONYMS):
                await self._store.delete(await self._store.list(f"monitor/{project}/{folder}"))


def _folder(project: str) -> str:
    return f"monitor/{project}/state"


def _path(project: str, number: int) -> str:
    return f"{_folder(project)}/{number:012d}.json"


def _encoded(checkpoint: Checkpoint) -> bytes:
    told = {
        "format": FORMAT,
        "number": checkpoint.number,
        "state": checkpoint.state.as_json(),
        "events": [
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
        ],
    }
    return json.dumps(told, separators=(",", ":"), allow_nan=False).encode()


def _decoded(project: str, path: str, data: bytes) -> Checkpoint:
    try:
        told = json.loads(data)
        if told["format"] != FORMAT:
            raise CorruptArtifact(f"{path} is of format {told['format']}; this release reads {FORMAT}")
        state = ProjectState.from_json(told["state"])
        return Checkpoint(project, told["number"], state, tuple(map(_event, told["events"])))
    except (InvalidEvent, KeyError, TypeError, ValueError) as error:
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
