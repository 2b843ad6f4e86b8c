"""A registry of images and charts on loopback, by Debian's ``docker-registry``."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tunewheel_local.kafka.ports import free_port

PROGRAM = "docker-registry"
PATIENCE_SECONDS = 120.0


@contextlib.contextmanager
def oci_registry(folder: Path) -> Iterator[str]:
    """Run a registry that keeps its files in ``folder``; yield its host and port. It speaks HTTP and asks for
    no password."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"apt-get install {PROGRAM}")
    folder.mkdir(parents=True, exist_ok=True)
    host = f"127.0.0.1:{free_port()}"
    settings = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(folder / "files")}},
        "http": {"addr": host},
    }
    (folder / "config.yml").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([PROGRAM, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        _wait(process, host, folder / "log")
        yield host
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def _wait(process: subprocess.Popen[bytes], host: str, log: Path) -> None:
    address, port = host.split(":")
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection((address, int(port)), 5):
            return
        assert process.poll() is None, log.read_text()[-4000:]
        assert time.monotonic() < until, log.read_text()[-4000:]
        time.sleep(0.1)
