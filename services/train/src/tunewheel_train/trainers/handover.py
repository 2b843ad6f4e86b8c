"""Checkpoints where nodes have disks of their own: the first process says which one all resume from, and
hands its files to the nodes that lack them, over the connections that gradients take."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, TypeVar

from tunewheel_train.model.modeling import group_backend, wait_for_all
from tunewheel_train.trainers import checkpoints

PART_BYTES = 64 << 20
"""Sent at once: a checkpoint may be larger than a GPU's memory."""
Value = TypeVar("Value")


def from_first(value: Value) -> Value:
    """Return the first process's ``value``, in each of those that train together."""
    if group_backend() is None:
        return value
    import torch.distributed as dist

    held = [value]
    dist.broadcast_object_list(held, src=0)
    return held[0]


def share_newest(work_dir: Path, method: str) -> None:
    """Leave every node with the first one's newest whole checkpoint of ``method``, and with no other, so that
    all go on from the same step whatever lies on their disks. All processes call this together."""
    if not _several_nodes():
        return
    newest = checkpoints.latest(work_dir, method) if _rank() == 0 else None
    name = from_first(newest.name if newest is not None else None)
    if _writes():
        for other in checkpoints.candidates(work_dir):
            if other.name != name:
                shutil.rmtree(other)
    wait_for_all()  # the other processes of a node look there too
    if name is not None:
        _hand_over(work_dir / name)


def share_step(work_dir: Path, step: int) -> None:
    """Bring the first node's checkpoint of ``step``, if it has that, to every node. All processes call this
    together."""
    if not _several_nodes():
        return
    found = checkpoints.at_step(work_dir, step) if _rank() == 0 else None
    if from_first(found is not None):
        _hand_over(work_dir / checkpoints.name_of(step))


def _several_nodes() -> bool:
    return os.environ.get("WORLD_SIZE", "1") != os.environ.get("LOCAL_WORLD_SIZE", "1")


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))


def _writes() -> bool:
    """Whether this process puts what is sent on its node's disk."""
    return _rank() > 0 and os.environ.get("LOCAL_RANK", "0") == "0"


def _hand_over(directory: Path) -> None:
    """Send the files of ``directory`` to the nodes that have others there, or none."""
    import torch.distributed as dist

    manifest = directory / checkpoints.MANIFEST
    said = from_first(manifest.read_bytes() if _rank() == 0 else b"")
    lacking: list[Any] = [None] * dist.get_world_size()
    lacks = _writes() and (checkpoints.read_manifest(directory) is None or manifest.read_bytes() != said)
    dist.all_gather_object(lacking, lacks)
    if not any(lacking):
        return
    scratch = directory.with_name(f".{directory.name}")
    if lacks:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    sizes = {file.name: file.stat().st_size for file in directory.iterdir()} if _rank() == 0 else {}
    for name, size in sorted(from_first(sizes).items()):
        _send(directory / name, scratch / name if lacks else None, size)
    if lacks:
        if checkpoints.read_manifest(scratch) is None:
            raise OSError(f"{directory.name} did not arrive whole")
        shutil.rmtree(directory, ignore_errors=True)
        scratch.rename(directory)
    wait_for_all()


def _send(source: Path, target: Path | None, size: int) -> None:
    """Send ``size`` bytes of ``source`` from the first process to all; those with a ``target`` keep them."""
    import torch
    import torch.distributed as dist
    from accelerate import PartialState

    device: Any = PartialState().device
    reading = source.open("rb") if _rank() == 0 else None
    writing = target.open("wb") if target is not None else None
    try:
        for at in range(0, size, PART_BYTES):
            count = min(PART_BYTES, size - at)
            if reading is not None:
                part = torch.frombuffer(bytearray(reading.read(count)), dtype=torch.uint8).to(device)
            else:
                part = torch.empty(count, dtype=torch.uint8, device=device)
            dist.broadcast(part, src=0)
            if writing is not None:
                writing.write(part.cpu().numpy().tobytes())
    finally:
        for file in (reading, writing):
            if file is not None:
                file.close()
