"""The record of every closed window: which completions it held, and what was found.

``monitor/<project>/<dataset_id>/<stream>/<number>.json``, created once and before anything is published: a
monitor that dies in between finds there what it had decided, and says it again under the same ids.
"""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.production import DriftDetected, DriftWindow
from tunewheel_contracts.fields import FiniteFloat, Frozen, Slug
from tunewheel_contracts.identity import canonical_json
from tunewheel_runtime.store import CorruptArtifact, ObjectStore

StreamName = Literal["completions", "feedback"]


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
    detections: tuple[DriftDetected, ...]
    cause_id: str
    correlation_id: str | None = None


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
        data = await self._store.read(paths[-1])
        try:
            return decode_data(WindowRecord, data or b"")
        except InvalidEvent as error:
            raise CorruptArtifact(f"{paths[-1]} is no window record: {error}") from error

    async def create(self, record: WindowRecord) -> None:
        """Write ``record``, once.

        Raises:
            ArtifactConflict: another process closed a window of this number with other items: run one
                monitor.
            TransientError: the store cannot be reached.
        """
        path = f"{_prefix(record.project, record.dataset_id, record.stream)}/{record.number:08d}.json"
        await self._store.put(path, canonical_json(record.model_dump(mode="json")))


def _prefix(project: str, dataset_id: str, stream: str) -> str:
    return f"monitor/{project}/{dataset_id}/{stream}"
