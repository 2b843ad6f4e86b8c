"""The record of every closed window: which completions it held, and what was found.

``monitor/<project>/<dataset_id>/<stream>/<number>.json``, created once and before anything is published: a
monitor that dies in between finds there what it had decided, and says it again under the same ids. What users
wrote leaves the record as soon as it is on the log, which keeps it for a while only.
"""

from __future__ import annotations

from typing import Literal

import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.production import DriftDetected, DriftWindow
from tunewheel_contracts.fields import FiniteFloat, Frozen, Slug
from tunewheel_contracts.identity import canonical_json
from tunewheel_runtime.store import ArtifactConflict, CorruptArtifact, ObjectStore

log = structlog.get_logger(__name__)
StreamName = Literal["completions", "feedback"]
STRIPPED = "monitor/excerpts-taken-out"
"""Is there once no record of an earlier release holds excerpts."""


class DetectorRecord(Frozen):
    """What one detector found in the window. ``spoken``: it drifted, and no alarm about it was open."""

    detector: str
    statistic_name: str
    statistic: FiniteFloat
    p_value: FiniteFloat
    threshold: FiniteFloat
    drifted: bool
    spoken: bool


class WindowRecord(Frozen):
    """One closed window; the newest one is all that a restarted monitor needs to go on."""

    project: Slug
    dataset_id: Slug
    stream: StreamName
    number: int
    window: DriftWindow
    frontier: dict[str, int]
    """Partition → offset before which everything is in this window or an earlier one."""
    baseline: tuple[int, int]
    """(bad, total) that later windows are compared with; the first window's own where nothing is known."""
    findings: tuple[DetectorRecord, ...]
    silence: dict[str, int]
    """Detector → how many completions in a row must still pass without drift before it speaks again."""
    not_measured: tuple[str, ...] = ()
    """Detectors that could not look: the texts that they compare are not logged."""
    detections: tuple[DriftDetected, ...]
    cause_id: str
    correlation_id: str | None = None
    said: bool = False
    """The detections are on the log, or were until its retention ended; their excerpts are here no more."""

    def told(self) -> WindowRecord:
        """Return the record as it is kept once its detections are on the log."""
        return self.without_excerpts().model_copy(update={"said": True})

    def without_excerpts(self) -> WindowRecord:
        """Return the record without what users wrote."""
        bare = [
            drift.model_copy(
                update={"examples": tuple(one.model_copy(update={"excerpt": ""}) for one in drift.examples)}
            )
            for drift in self.detections
        ]
        return self.model_copy(update={"detections": tuple(bare)})


class WindowRecords:
    """Window records in the object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def latest(self, project: str, dataset_id: str, stream: StreamName) -> WindowRecord | None:
        """Return the newest record, None before the first.

        Raises:
            CorruptArtifact: the record is not one; remove it only if its drift may be reported again.
            TransientError: the store cannot be reached.
        """
        paths = await self._store.list(_prefix(project, dataset_id, stream))
        if not paths:
            return None
        return await self._read(paths[-1])

    async def create(self, record: WindowRecord) -> None:
        """Write ``record``, once. Where this window was closed before, and its drift not said, only excerpts
        may differ: of what was erased meanwhile there is none.

        Raises:
            ArtifactConflict: another process closed a window of this number with other items: run one
                monitor.
            TransientError: the store cannot be reached.
        """
        path = _path(record)
        try:
            await self._store.put(path, _bytes(record))
        except ArtifactConflict:
            before = await self._read(path)
            if before.told() != record.told():
                raise
            if not before.said:
                await self._store.replace(path, _bytes(record))

    async def keep_told(self, record: WindowRecord) -> None:
        """Take what users wrote out of a record whose detections are on the log."""
        await self._store.replace(_path(record), _bytes(record.told()))

    async def strip_earlier(self) -> None:
        """Take excerpts out of the records that earlier releases kept them in; once for a store.

        The records that may not be said yet must have been said before. A record that is damaged keeps what
        it holds: nothing is known of it.
        """
        if await self._store.exists(STRIPPED):
            return
        for path in await self._store.list("monitor"):
            if not path.endswith(".json"):
                continue
            try:
                record = await self._read(path)
            except CorruptArtifact as error:
                log.error("window_record_damaged", error=str(error), mend="remove the file")
                continue
            if record.detections:
                await self._store.replace(path, _bytes(record.without_excerpts()))
        await self._store.first(STRIPPED, b"")

    async def first(self, path: str, data: bytes) -> bytes:
        """See ``ObjectStore.first``."""
        return await self._store.first(path, data)

    async def _read(self, path: str) -> WindowRecord:
        try:
            return decode_data(WindowRecord, await self._store.read(path) or b"")
        except InvalidEvent as error:
            raise CorruptArtifact(f"{path} is no window record: {error}") from error


def _path(record: WindowRecord) -> str:
    return f"{_prefix(record.project, record.dataset_id, record.stream)}/{record.number:08d}.json"


def _bytes(record: WindowRecord) -> bytes:
    return canonical_json(record.model_dump(mode="json"))


def _prefix(project: str, dataset_id: str, stream: str) -> str:
    return f"monitor/{project}/{dataset_id}/{stream}"
