"""Reads the measurements of runs in the object store, which correct the next plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_planner.calibration import REMEMBERED, Calibration
from tunewheel_planner.devices import GIB, Device

if TYPE_CHECKING:
    from tunewheel_runtime.store import ObjectStore

MOST = 10 * REMEMBERED
"""How many manifests are read. A correction uses only the latest runs of its kind."""


async def read_runs(store: ObjectStore) -> list[RunManifest]:
    """Return the manifests of the latest runs in ``store``, oldest first, without unreadable ones.

    Raises TransientError: the store is away.
    """
    written = await store.written("runs")
    paths = [path for path in written if path.count("/") == 2 and path.endswith("/manifest.json")]
    found: list[RunManifest] = []
    for path in sorted(paths, key=lambda path: (written[path], path))[-MOST:]:
        content = await store.read(path)
        try:
            found.append(decode_data(RunManifest, content or b""))
        except InvalidEvent:
            continue
    return found


def calibrated_by(runs: Sequence[RunManifest]) -> Calibration:
    """Return the calibration that the train service would have after ``runs``."""
    calibration = Calibration()
    for run in runs:
        calibration.learn(run.plan, run.usage)
    return calibration


def as_it_ran(device: Device, runs: Sequence[RunManifest]) -> Device:
    """Return a processor with the memory and the speed of the last run's. Any other device stays as it is."""
    for run in reversed(runs) if device.kind == "cpu" else ():
        plan = run.plan
        if plan is not None and plan.device == device.name and plan.teraflops is not None:
            return device.model_copy(
                update={
                    "memory_gib": plan.available_bytes / GIB,
                    "teraflops": plan.teraflops,
                    "bfloat16": run.dtype == "bfloat16",
                }
            )
    return device
