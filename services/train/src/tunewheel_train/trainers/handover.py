"""Sends checkpoints to nodes with disks of their own. The first process chooses the checkpoint that all
resume from, and sends its files to the nodes that lack them, over the connections of the process group.

Anybody who reaches the group's port could pretend to be the first process. So only JSON and the bytes of
files are received, never a pickle, and no name may lie outside the checkpoint's folder.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tunewheel_train.model.process_group import group_backend, wait_for_all
from tunewheel_train.trainers import checkpoints

PART_BYTES = 64 << 20
"""The most bytes that are sent at once: a checkpoint may be larger than a GPU's memory."""
LENGTH_BYTES = 8


def from_first(value: Any) -> Any:
    """Return the first process's ``value`` in every process that trains together. It must be valid as
    JSON."""
    if group_backend() is None:
        return value
    said = json.dumps(value).encode() if _rank() == 0 else None
    length = len(said).to_bytes(LENGTH_BYTES, "big") if said is not None else None
    size = int.from_bytes(_bytes_of(_broadcast(length, LENGTH_BYTES)), "big")
    return json.loads(_bytes_of(_broadcast(said, size)))


def share_newest(work_dir: Path, method: str) -> None:
    """Give every node the first node's newest undamaged checkpoint of ``method``, and delete all others
    there, so that all nodes resume from the same step. All processes call this together."""
    if not _several_nodes():
        return
    newest = checkpoints.latest(work_dir, method) if _rank() == 0 else None
    step = from_first(checkpoints.step_of(newest) if newest is not None else None)
    if _writes():
        for other in checkpoints.candidates(work_dir):
            if checkpoints.step_of(other) != step:
                shutil.rmtree(other)
    wait_for_all()  # other processes of the node read this directory too
    if step is not None:
        _hand_over(work_dir / checkpoints.name_of(step))


def share_step(work_dir: Path, step: int) -> None:
    """Send the first node's checkpoint of ``step``, if it has one, to every node. All processes call this
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
    """Return whether this process writes received files to its node's disk."""
    return _rank() > 0 and os.environ.get("LOCAL_RANK", "0") == "0"


def _hand_over(directory: Path) -> None:
    """Send the files of ``directory`` to the nodes that lack them or have other ones."""
    manifest = directory / checkpoints.MANIFEST
    said = from_first(manifest.read_text() if _rank() == 0 else None)
    lacks = _writes() and (checkpoints.read_manifest(directory) is None or manifest.read_text() != said)
    if not _any(lacks):
        return
    scratch = directory.with_name(f".{directory.name}")
    if lacks:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    sizes = {file.name: file.stat().st_size for file in directory.iterdir()} if _rank() == 0 else {}
    for name, size in sorted(from_first(sizes).items()):
        if Path(name).name != name:
            raise ValueError(f"{name!r} is no file of a checkpoint")
        _send(directory / name, scratch / name if lacks else None, size)
    if lacks:
        if checkpoints.read_manifest(scratch) is None:
            raise OSError(f"{directory.name} did not arrive whole")
        shutil.rmtree(directory, ignore_errors=True)
        scratch.rename(directory)
    wait_for_all()


def _send(source: Path, target: Path | None, size: int) -> None:
    """Send ``size`` bytes of ``source`` from the first process to all; those with a ``target`` keep them."""
    reading = source.open("rb") if _rank() == 0 else None
    writing = target.open("wb") if target is not None else None
    try:
        for at in range(0, size, PART_BYTES):
            count = min(PART_BYTES, size - at)
            part = _broadcast(reading.read(count) if reading is not None else None, count)
            if writing is not None:
                writing.write(_bytes_of(part))
    finally:
        for file in (reading, writing):
            if file is not None:
                file.close()


def _broadcast(content: bytes | None, size: int) -> Any:
    """Return the ``size`` bytes of the first process's ``content`` in every process, as a tensor on its
    device. The other processes pass None."""
    import torch
    import torch.distributed as dist

    device = _device()
    if content is not None:
        part = torch.frombuffer(bytearray(content), dtype=torch.uint8).to(device)
    else:
        part = torch.empty(size, dtype=torch.uint8, device=device)
    dist.broadcast(part, src=0)
    return part


def _bytes_of(part: Any) -> bytes:
    return part.cpu().numpy().tobytes()


def _any(wanted: bool) -> bool:
    """Return whether ``wanted`` is true in any process."""
    import torch
    import torch.distributed as dist

    votes = torch.tensor([int(wanted)], device=_device())
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def _device() -> Any:
    from accelerate import PartialState

    return PartialState().device
