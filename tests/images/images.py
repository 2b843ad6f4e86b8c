"""The image of every service: built, started as its entry point says, and asked by its own health check.

Not part of ``make test``, hence the file's name: it takes minutes, and a service with torch takes twenty
gigabytes of disk. ``make test-images`` needs buildah, which works without a daemon. ``PYTHON_IMAGE`` names
another base image.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tunewheel_basemodel.tiny import write_tiny_model
from tunewheel_cli.kafka.ports import free_port
from tunewheel_runtime.identity.roles import Role

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/Dockerfile"))
BASE = os.environ.get("PYTHON_IMAGE", "docker.io/library/python:3.12-slim")
BUILDAH = ("buildah", "--storage-driver", os.environ.get("STORAGE_DRIVER", "vfs"))
ISOLATED = ("--isolation", "chroot", "--network", "host")
KEY = secrets.token_urlsafe(32)
GUARDED = {
    "console": ("POST", "/v1/projects/none/runs/none/pause"),
    "engine": ("GET", "/v1/models"),
    "ingest": ("GET", "/openapi.json"),
    "registry": ("GET", "/v1/projects"),
    "serve-gateway": ("GET", "/v1/models"),
}
"""A route of each service that has an API."""
ASKS_WHO = (*GUARDED, "curate", "eval", "train")
"""Services that start only where somebody can be told by name: by an API, or by events that people cause."""
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
    buildah("bud", "--format", "docker", "--quiet", *ISOLATED, *options, str(ROOT))
    yield tag
    buildah("rmi", "--force", tag)
    subprocess.run([*BUILDAH, "rmi", "--prune"], capture_output=True)


@dataclass(frozen=True)
class Container:
    """One container of an image, with ``data`` at /data; buildah has no ``run --detach``."""

    name: str
    service: str
    config: dict[str, Any]
    data: Path

    def command(self, environment: Mapping[str, str], argv: Sequence[str]) -> list[str]:
        options = [f"--env={name}={value}" for name, value in environment.items()]
        return [
            *BUILDAH,
            "run",
            *ISOLATED,
            *options,
            "--volume",
            f"{self.data}:/data",
            self.name,
            "--",
            *argv,
        ]

    def run(self, environment: Mapping[str, str], argv: Sequence[str]) -> tuple[int, str]:
        """Run ``argv`` to its end; return exit code and output."""
        done = subprocess.run(
            self.command(environment, argv), capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        return done.returncode, done.stdout + done.stderr

    @contextlib.contextmanager
    def started(self, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run the image's entry point, and stop it."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(environment, self.config["Cmd"]), stdout=output, stderr=output
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


@pytest.fixture
def container(image: str, tmp_path: Path) -> Iterator[Container]:
    """Yield a container of ``image`` with a model, an empty store and a file of keys; remove it."""
    config = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    data = tmp_path / "data"
    write_tiny_model(data / "model")
    for file in (data / "model").iterdir():
        file.chmod(0o644)  # safetensors lets only its writer read
    keys = {"keys": {"ops": {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "roles": list(Role)}}}
    (data / "keys.yaml").write_text(json.dumps(keys), encoding="utf-8")
    for folder in (data, data / "store"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the image's user is none of this machine's
    name = buildah("from", image)
    service = image.removeprefix("localhost/tunewheel-").removesuffix(":test")
    yield Container(name, service, config, data)
    buildah("rm", name)


def test_the_image_builds_and_its_entry_point_gets_ready(
    container: Container, kafka: str, tmp_path: Path
) -> None:
    """On all addresses, as the image is set, with a file of keys."""
    config = container.config
    assert config["User"] not in ("", "root", "0")
    guarded = GUARDED.get(container.service)
    assert (guarded is not None) == ("8080/tcp" in config["ExposedPorts"])
    port, health_port = free_port(), free_port()
    environment = {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_HTTP_PORT": str(port),
        "TUNEWHEEL_HEALTH_PORT": str(health_port),
        "TUNEWHEEL_STORE_URL": "file:///data/store",
        "TUNEWHEEL_WORK_DIR": "/data/work",
        "TUNEWHEEL_CACHE_DIR": "/data/cache",
        "TUNEWHEEL_BASE_MODEL": "/data/model",
    }
    if container.service in ASKS_WHO:
        code, said = container.run(environment, config["Cmd"])
        assert code == 2, said[-4000:]
        assert "TUNEWHEEL_API_KEYS_FILE" in said
    environment["TUNEWHEEL_API_KEYS_FILE"] = "/data/keys.yaml"
    log = tmp_path / "log"
    with container.started(environment, log) as process:
        until = time.monotonic() + PATIENCE_SECONDS
        code, said = 1, ""
        while code:
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < until, said + log.read_text(errors="replace")[-4000:]
            code, said = container.run(environment, config["Healthcheck"]["Test"][1:])
        if guarded is not None:
            assert _status(port, *guarded, key=None) == 401
            assert _status(port, *guarded, key=KEY) in (200, 404)


def _status(port: int, method: str, path: str, *, key: str | None) -> int:
    request = Request(f"http://127.0.0.1:{port}{path}", method=method)
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status
    except HTTPError as error:
        return error.code
