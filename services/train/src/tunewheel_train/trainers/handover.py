"""Checkpoints where nodes have disks of their own: the first process says which one all resume from, and
hands its files to the nodes that lack them, over the connections that gradients take.

Whoever reaches the port where processes meet can answer in the first one's place. So what comes from there is
JSON or the bytes of a file, never a pickle, and names nothing outside the checkpoint's folder.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from tunewheel_train.model.modeling import group_backend, wait_for_all
from tunewheel_train.trainers import checkpoints

PART_BYTES = 64 << 20
"""Sent at once: a checkpoint may be larger than a GPU's memory."""
LENGTH_BYTES = 8


def from_first(value: Any) -> Any:
    """Return the first process's ``value``, which JSON can hold, in each of those that train together: its
    length goes first, then its bytes."""
    if group_backend() is None:
        return value
    said = json.dumps(value).encode() if _rank() == 0 else None
    length = len(said).to_bytes(LENGTH_BYTES, "big") if said is not None else None
    size = int.from_bytes(_bytes_of(_broadcast(length, LENGTH_BYTES)), "big")
    return json.loads(_bytes_of(_broadcast(said, size)))


def share_newest(work_dir: Path, method: str) -> None:
    """Leave every node with the first one's newest whole checkpoint of ``method``, and with no other, so that
    all go on from the same step whatever lies on their disks. All processes call this together."""
    if not _several_nodes():
        return
    newest = checkpoints.latest(work_dir, method) if _rank() == 0 else None
    step = from_first(checkpoints.step_of(newest) if newest is not None else None)
    if _writes():
        for other in checkpoints.candidates(work_dir):
            if checkpoints.step_of(other) != step:
                shutil.rmtree(other)
    wait_for_all()  # the other processes of a node look there too
    if step is not None:
        _hand_over(work_dir / checkpoints.name_of(step))


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
    """Return the ``size`` bytes of the first process's ``content`` in each process, as a tensor of its
    device; the others give None."""
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
    """Whether any of the processes wants it."""
    import torch
    import torch.distributed as dist

    votes = torch.tensor([int(wanted)], device=_device())
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes.item())


def _device() -> Any:
    from accelerate import PartialState

    return PartialState().device
