"""The image of every service: built, started as its entry point says, and asked whether it is ready.

Not part of ``make test``, hence the file's name: it takes minutes, and a service with torch takes twenty
gigabytes of disk. ``make test-images`` needs buildah, which works without a daemon. ``PYTHON_IMAGE`` names
another base image.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_cli.kafka.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/Dockerfile"))
BASE = os.environ.get("PYTHON_IMAGE", "docker.io/library/python:3.12-slim")
BUILDAH = ("buildah", "--storage-driver", os.environ.get("STORAGE_DRIVER", "vfs"))
ISOLATED = ("--isolation", "chroot", "--network", "host")
READY = {"engine": "/health"}
PATIENCE_SECONDS = 300.0

pytestmark = pytest.mark.skipif(shutil.which("buildah") is None, reason="apt-get install buildah")


def buildah(*arguments: str) -> str:
    done = subprocess.run([*BUILDAH, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (
        f"buildah {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout.strip()


@pytest.fixture(params=SERVICES, ids=lambda path: path.name)
def image(request: pytest.FixtureRequest) -> Iterator[str]:
    """Build a service's image, yield its tag, and remove it."""
    service: Path = request.param
    tag = f"localhost/tunewheel-{service.name}:test"
    options = ("--build-arg", f"PYTHON_IMAGE={BASE}", "--file", str(service / "Dockerfile"), "--tag", tag)
    buildah("bud", "--quiet", *ISOLATED, *options, str(ROOT))
    yield tag
    buildah("rmi", "--force", tag)
    subprocess.run([*BUILDAH, "rmi", "--prune"], capture_output=True)


@contextlib.contextmanager
def started(
    image: str, environment: dict[str, str], volume: Path, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run an image's entry point with ``volume`` at /data; stop it and remove its container."""
    config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    assert config["User"] not in ("", "root", "0")
    container = buildah("from", image)
    options = [f"--env={name}={value}" for name, value in environment.items()]
    command = [
        *BUILDAH,
        "run",
        *ISOLATED,
        *options,
        "--volume",
        f"{volume}:/data",
        container,
        "--",
        *config["Cmd"],
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        buildah("rm", container)


def test_the_image_builds_and_its_entry_point_gets_ready(image: str, kafka: str, tmp_path: Path) -> None:
    name = image.removeprefix("localhost/tunewheel-").removesuffix(":test")
    data, port, health_port = tmp_path / "data", free_port(), free_port()
    write_tiny_model(data / "model")
    for folder in (data, data / "store"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the image's user is none of this machine's
    environment = {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_HTTP_PORT": str(port),
        "TUNEWHEEL_HEALTH_PORT": str(health_port),
        "TUNEWHEEL_IDENTITY": "open",
        "TUNEWHEEL_STORE_URL": "file:///data/store",
        "TUNEWHEEL_WORK_DIR": "/data/work",
        "TUNEWHEEL_CACHE_DIR": "/data/cache",
        "TUNEWHEEL_BASE_MODEL": "/data/model",
        "TUNEWHEEL_HTTP_HOST": "127.0.0.1",  # by open identity no service listens on a network
    }
    log = tmp_path / "log"
    with started(image, environment, data, log) as process:
        until = time.monotonic() + PATIENCE_SECONDS
        while not _answers(f"http://127.0.0.1:{health_port}{READY.get(name, '/health/ready')}"):
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < until, log.read_text(errors="replace")[-4000:]
            time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as answer:
            return answer.status == 200
    except (URLError, OSError):
        return False
