"""Real training processes, forked from one that has imported everything: ten seconds of imports once.

Reads requests from stdin, a JSON object per line: {"jobs": paths, "point": name or null, "processes": n,
"threads": n}.
Answers each with the list of exit codes (negative: a signal's number). ``point`` is where a process kills
itself with SIGKILL; several ``processes`` train one run together. Of several jobs each is a node of one
process, and the last one's kills itself. Messages go to ``<job>.<rank>.out``, and how long processes wait for
each other to ``<job>.<rank>.patience``. A process that would unpickle what another one sends fails.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tunewheel_basemodel.loading import import_bitsandbytes

STEP = 4
"""Of the checkpoint that is interrupted."""


def main() -> None:
    gc.disable()
    import_bitsandbytes()  # before anything that imports peft
    for name in ("stages", "trainers.sft_trainer"):
        importlib.import_module(f"tunewheel_train.{name}")
    gc.freeze()  # no fork copies what it shares, or looks through it
    checkpoint_at_every_chance()
    gc.enable()
    for line in sys.stdin:
        request = json.loads(line)
        count = max(request["processes"], len(request["jobs"]))
        port = free_port() if count > 1 else 0
        children = [fork(request, rank, count, port) for rank in range(count)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        print(json.dumps(codes), flush=True)


def checkpoint_at_every_chance() -> None:
    """Write a checkpoint every ``checkpoint_steps``, whatever it costs."""
    from tunewheel_train.trainers.checkpoint_writer import CheckpointWriter

    def is_due(self: CheckpointWriter, step: int, every: int) -> bool:
        self.wait()
        return step % every == 0

    CheckpointWriter.is_due = is_due  # type: ignore[method-assign]


_reserved: list[socket.socket] = []


def free_port() -> int:
    """It stays bound here: the system gives it to no other test, and PyTorch may still listen there."""
    free = socket.socket()
    free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    free.bind(("127.0.0.1", 0))
    _reserved.append(free)
    return int(free.getsockname()[1])


def fork(request: dict[str, Any], rank: int, count: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    try:
        train(request, rank, count, port)
    finally:
        os._exit(99)


def train(request: dict[str, Any], rank: int, count: int, port: int) -> NoReturn:
    import torch
    from torch import distributed
    from tunewheel_train import worker

    nodes, job, local = len(request["jobs"]), request["jobs"][0], count
    if nodes > 1:
        job, local = request["jobs"][rank], 1
    if count > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank % local), "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(local), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    torch.set_num_threads(request["threads"])
    out = os.open(f"{job}.{rank}.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    if request.get("point") and rank >= nodes - 1:
        (POINTS | OTHERS)[request["point"]]()
    if count > 1:
        unpickle_nothing()
    code = worker.main(["train", job])
    if count > 1 and distributed.is_initialized():
        Path(f"{job}.{rank}.patience").write_text(str(seconds_of_group()))
    sys.stderr.flush()
    os._exit(code)


def unpickle_nothing() -> None:
    from torch.distributed import distributed_c10d

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a process unpickles what another one sends")

    assert hasattr(distributed_c10d, "_tensor_to_object")
    distributed_c10d._tensor_to_object = refuse


def seconds_of_group() -> float:
    import torch
    from torch.distributed import distributed_c10d

    group: Any = distributed_c10d._get_default_group()
    return group._get_backend(torch.device("cpu")).options._timeout.total_seconds()


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_message(kind: str, step: int | None = None) -> Callable[[], None]:
    """Die once such a message is out."""

    def install() -> None:
        from tunewheel_train import worker

        write = worker.write

        def writing(stream: Any, message: Any) -> None:
            write(stream, message)
            if message.kind == kind and step in (None, getattr(message, "step", None)):
                die()

        worker.write = writing

    return install


def after(module: str, name: str, *, before: bool = False, only: Callable[..., bool] = lambda *_: True):
    """Die when ``module.name`` was called, or instead of the call."""

    def install() -> None:
        owner: Any = importlib.import_module(module)
        original = getattr(owner, name)

        def calling(*args: Any, **kwargs: Any) -> Any:
            fatal = only(*args)
            if fatal and before:
                die()
            result = original(*args, **kwargs)
            if fatal:
                die()
            return result

        setattr(owner, name, calling)

    return install


def in_the_middle_of_a_step() -> None:
    from tunewheel_train.trainers.loss import TokenCrossEntropy

    original, calls = TokenCrossEntropy.apply, []

    def applying(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:  # the second of step 3's two micro-batches
            die()
        return original(*args)

    TokenCrossEntropy.apply = applying


def at_the_rename(*, before: bool) -> Callable[[], None]:
    def install() -> None:
        original = Path.rename

        def renaming(self: Path, target: Path) -> Path:
            fatal = Path(target).name == f"checkpoint-{STEP:06}"
            if fatal and before:
                die()
            result = original(self, target)
            if fatal:
                die()
            return result

        Path.rename = renaming  # type: ignore[method-assign]

    return install


def asked_to_stop() -> None:
    """SIGTERM to the second process alone, as one that fails first would see it: all must stop."""
    from tunewheel_train.trainers.progress_callback import ProgressCallback

    original = ProgressCallback.on_step_begin

    def beginning(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        original(self, args, state, control, **more)
        if state.global_step == 2 and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGTERM)

    ProgressCallback.on_step_begin = beginning


def second_process_dies() -> None:
    from tunewheel_train.trainers.stepping import PlannedSteps

    original, calls = PlannedSteps.training_step, []

    def stepping(self: Any, *args: Any, **more: Any) -> Any:
        calls.append(1)
        if len(calls) == 3 and os.environ.get("RANK") == "1":
            die()
        return original(self, *args, **more)

    PlannedSteps.training_step = stepping  # type: ignore[method-assign]


def while_a_checkpoint_is_written() -> None:
    """Die when the next step is done and the checkpoint's files are written, but not its manifest."""
    from tunewheel_train.trainers import checkpoints
    from tunewheel_train.trainers.progress_callback import ProgressCallback

    goes_on, hashed, ended = threading.Event(), checkpoints.sha256_file, ProgressCallback.on_step_end

    def hashing(file: Path) -> str:
        if file.parent.name.endswith(f"{STEP:06}"):
            assert goes_on.wait(120)
            die()
        return hashed(file)

    def ending(self: Any, args: Any, state: Any, control: Any, **more: Any) -> Any:
        if state.global_step == STEP + 1:
            goes_on.set()
        return ended(self, args, state, control, **more)

    checkpoints.sha256_file = hashing
    ProgressCallback.on_step_end = ending


def _at_step(snapshot: Any, *_: Any) -> bool:
    return snapshot.step == STEP


CHECKPOINTS = "tunewheel_train.trainers.checkpoints"
POINTS: dict[str, Callable[[], None]] = {
    "started": at_message("started"),
    "first step reported": at_message("progressed", 1),
    "middle of a step": in_the_middle_of_a_step,
    "checkpoint copied, not written": after(CHECKPOINTS, "_write_files", before=True, only=_at_step),
    "checkpoint being written, training goes on": while_a_checkpoint_is_written,
    "checkpoint's manifest written": after(CHECKPOINTS, "_write_files", only=_at_step),
    "checkpoint whole, not in its place": at_the_rename(before=True),
    "checkpoint in its place, older ones not dropped": at_the_rename(before=False),
    "checkpoint reported": at_message("checkpointed", STEP),
    "adapter written, not described": after("tunewheel_train.recipe", "_describe", before=True),
    "adapter whole, not told": after("tunewheel_train.recipe", "_describe"),
}
OTHERS = {"asked to stop": asked_to_stop, "second process dies": second_process_dies}

if __name__ == "__main__":
    main()
