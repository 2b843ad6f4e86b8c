"""llama.cpp's programs, which ``make llama-cpp`` builds, and its server as a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
from tunewheel_local.kafka.ports import free_port

from tunewheel_testing.waiting import wait_for

_BUILT = Path(__file__).resolve().parents[2] / "var/llama.cpp"


def llama_cpp_folder() -> Path | None:
    """Return the folder that the machine's user names, or the one that was built in this checkout."""
    if named := os.environ.get("TUNEWHEEL_LLAMA_CPP"):
        return Path(named)
    return _BUILT if (_BUILT / ".installed").is_file() else None


def llama_cpp_program(folder: Path, name: str) -> str | None:
    """Return the program ``name`` of a build in ``folder``, or on PATH."""
    return shutil.which(name, path=os.pathsep.join([str(folder / "build/bin"), os.environ.get("PATH", "")]))


@contextlib.contextmanager
def llama_server(program: str, file: Path, log: Path) -> Iterator[httpx.Client]:
    """Serve the GGUF ``file`` until the end of the body; yields a client of the server."""
    port = free_port()
    command = [program, "--model", str(file), "--host", "127.0.0.1", "--port", str(port), "--offline",
               "--ctx-size", "1024", "--parallel", "1", "--threads", "1"]  # fmt: skip
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300) as client,
    ):

        def ready() -> bool:
            assert process.poll() is None, log.read_text("utf-8", errors="replace")[-2000:]
            with contextlib.suppress(httpx.TransportError):
                return client.get("/health").status_code == 200
            return False

        try:
            wait_for(ready, "llama-server")
            yield client
        finally:
            process.kill()
