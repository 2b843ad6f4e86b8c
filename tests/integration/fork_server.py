"""Workers of services that run in a test's process, forked from a process that has imported what they need.

``python -m tunewheel_train.worker`` takes six seconds of a processor to start, eval's and curate's five, and
even the light worker of train's tests half a second, which hundreds of them add up.
Where a test is about what comes of a worker on the log, it is forked; how it is started, stopped and killed
in truth is held by the tests beside the services and by those that kill.

What ``forked`` gives is the command of a small process that asks for a fork: it hands over its streams and
all else that a process is started with, passes SIGTERM on, and ends as the fork does. Whoever kills it kills
both.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

TERMINATE = b"terminate"
ENVIRONMENT_BYTES = 1 << 17
"""At most; a packet of a Unix socket holds some 200 KB."""

Main = Callable[[], int | None]


@functools.cache
def forked(module: str, *, hash_seed: str = "random") -> tuple[str, ...]:
    """Return a command that does what ``python -m module`` does, on one thread. Of one ``hash_seed`` (that of
    PYTHONHASHSEED), all of them hash strings alike."""
    address = Path(tempfile.mkdtemp(prefix="tunewheel-server-")) / "socket"
    server = subprocess.Popen(
        [sys.executable, __file__, "bear", f"{module} at {address}"],  # not a worker's command line
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": hash_seed},
    )  # fmt: skip
    atexit.register(_close, server)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    return sys.executable, "-I", "-S", __file__, "ask", module, str(address)


def _close(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait(60)


def ask(address: str, arguments: list[str]) -> int:
    """Be the worker for whoever started this process; returns its exit code."""
    given = {"arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd())}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.connect(address)
        signal.signal(signal.SIGTERM, lambda *_: server.send(TERMINATE))
        socket.send_fds(server, [json.dumps(given).encode()], [0, 1, 2])
        code = int(server.recv(8) or b"1")
    return code if code >= 0 else 128 - code


def bear(module: str, address: str) -> None:
    """Import what the worker needs, then fork it for everybody who asks, until stdin ends."""
    gc.disable()
    main = LOADERS[module]()
    gc.freeze()  # no fork copies what it shares, or looks through it
    gc.enable()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the guards
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while sys.stdin not in (ready := select.select([listener, sys.stdin], [], [])[0]):
            assert listener in ready
            asker, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _guard(asker, main)
            asker.close()
    shutil.rmtree(Path(address).parent)


def _guard(asker: socket.socket, main: Main) -> NoReturn:
    """Fork the worker, and stand between it and whoever asked for it until one of them is gone."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    given, streams, *_ = socket.recv_fds(asker, ENVIRONMENT_BYTES, 3)
    worker = os.fork()
    if worker == 0:
        asker.close()
        _work(json.loads(given), streams, main)
    for stream in streams:
        os.close(stream)
    ended = os.pidfd_open(worker)
    while ended not in select.select([asker, ended], [], [])[0]:
        if asker.recv(16) == TERMINATE:
            os.kill(worker, signal.SIGTERM)
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(worker, signal.SIGKILL)
            os._exit(0)
    _, status = os.waitpid(worker, 0)
    with contextlib.suppress(OSError):
        asker.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _work(given: dict[str, Any], streams: list[int], main: Main) -> NoReturn:
    code: Any = 1
    try:
        os.setpgid(0, 0)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.clear()
        os.environ.update(given["environment"])
        os.chdir(given["folder"])
        sys.argv[1:] = given["arguments"]
        code = main() or 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _train() -> Main:
    from tunewheel_basemodel.loading import import_bitsandbytes

    import_bitsandbytes()
    for name in ("stages", "trainers.sft_trainer"):
        importlib.import_module(f"tunewheel_train.{name}")
    importlib.import_module("held").hold_training()
    return importlib.import_module("tunewheel_train.worker").main


def _eval() -> Main:
    from tunewheel_basemodel.loading import import_bitsandbytes

    import_bitsandbytes()
    for name in ("peft", "transformers.models.llama.modeling_llama", "tunewheel_eval.measuring"):
        importlib.import_module(name)
    return importlib.import_module("tunewheel_eval.worker").main


def _curate() -> Main:
    worker = importlib.import_module("tunewheel_curate.builds.worker")
    worker.load()
    return worker.main


def _light() -> Main:
    made = runpy.run_path(str(Path(__file__).parents[2] / "services/train/tests/light_worker.py"))
    return functools.partial(made["main"], recipe=made["light_recipe"])


LOADERS: dict[str, Callable[[], Main]] = {
    "light_worker": _light,
    "tunewheel_train.worker": _train,
    "tunewheel_eval.worker": _eval,
    "tunewheel_curate.builds.worker": _curate,
}

if __name__ == "__main__":
    match sys.argv[1:]:
        case "ask", _, place, *rest:
            sys.exit(ask(place, rest))
        case "bear", what:
            bear(*what.split(" at ", 1))
