"""Images and containers by buildah, which needs no daemon; and what a wheel of containers shares."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from tunewheel_runtime.identity.roles import Role
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.tiny import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
SERVICES = tuple(sorted(path.parent.name for path in ROOT.glob("services/*/pyproject.toml")))
DOCKERFILE = ROOT / "deploy/images/Dockerfile"
BUILDAH = ("buildah", "--storage-driver", os.environ.get("STORAGE_DRIVER", "overlay"))
ISOLATED = ("--isolation", "chroot", "--network", "host")
VOLUME = "/var/lib/tunewheel"
WITH_TORCH = ("engine", "eval", "train")
LAUNCHER = "train-launcher"
PATIENCE_SECONDS = 300.0
HEALTH_CHECK = ("python", "-m", "tunewheel_runtime.health")


def buildah(*arguments: str) -> str:
    done = subprocess.run([*BUILDAH, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, (
        f"buildah {' '.join(arguments)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    )
    return done.stdout.strip()


def skip_without_base() -> None:
    """Skip where no image can be built: buildah or the image that all are built on is not to be had."""
    if shutil.which("buildah") is None:
        pytest.skip("apt-get install buildah")
    (default,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE.read_text("utf-8"), re.MULTILINE)
    base = os.environ.get("PYTHON_IMAGE", default)
    done = subprocess.run([*BUILDAH, "pull", "--policy", "missing", base], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"PYTHON_IMAGE: {base} cannot be had, name a base that can: {done.stderr[-500:]}")


def prune() -> None:
    """Remove the stages of images. Those that a container uses, also of a build that was killed, stay."""
    subprocess.run([*BUILDAH, "rmi", "--prune"], capture_output=True, check=False)


@dataclass(frozen=True)
class Image:
    """The image of a service, ``LAUNCHER``, or ``cli``: built here, or in a registry at ``address``."""

    name: str
    address: str = ""

    @property
    def tag(self) -> str:
        return self.address or f"localhost/tunewheel-{self.name}:test"

    def build(self, *options: str) -> None:
        """Build it as a release does. The stages that images share are built once."""
        command = [ROOT / "scripts/image.sh", self.name, self.tag, *ISOLATED, *options]
        environment = {**os.environ, "STORAGE_DRIVER": BUILDAH[2]}
        done = subprocess.run(
            [str(word) for word in command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{self.name}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"

    def pull(self) -> None:
        """From a registry without TLS."""
        buildah("pull", "--quiet", "--tls-verify=false", self.tag)

    @property
    def config(self) -> dict[str, Any]:
        return self._inspected["Docker"]["config"]

    @property
    def layers(self) -> list[tuple[str, str]]:
        """Each layer's digest, and the step of the Dockerfile that made it."""
        image = self._inspected["OCIv1"]
        steps = [one["created_by"] for one in image["history"] if not one.get("empty_layer")]
        return [*zip(image["rootfs"]["diff_ids"], steps, strict=True)]

    @cached_property
    def _inspected(self) -> dict[str, Any]:
        return json.loads(buildah("inspect", "--type", "image", self.tag))


@dataclass(frozen=True)
class Container:
    """One container of an image, with the folder ``volume`` at ``place``; buildah has no ``run --detach``."""

    name: str
    image: Image
    volume: Path
    place: str | Path

    def command(self, environment: Mapping[str, str], argv: Sequence[str]) -> list[str]:
        options = [f"--env={name}={value}" for name, value in environment.items()]
        options += ["--volume", f"{self.volume}:{self.place}"]
        return [*BUILDAH, "run", *ISOLATED, *options, self.name, "--", *argv]

    def run(self, environment: Mapping[str, str], argv: Sequence[str]) -> tuple[int, str]:
        """Run ``argv`` to its end; return exit code and output."""
        done = subprocess.run(
            self.command(environment, argv), capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )
        return done.returncode, done.stdout + done.stderr

    @contextlib.contextmanager
    def started(self, environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run the image's entry point until its health check says ready; stop it at the end."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                self.command(environment, self.image.config["Cmd"]), stdout=output, stderr=output
            )
        try:
            self._wait(process, environment, log)
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)

    def _wait(self, process: subprocess.Popen[bytes], environment: Mapping[str, str], log: Path) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        code, said = 1, ""
        while code:
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            assert time.monotonic() < until, said + log.read_text(errors="replace")[-4000:]
            code, said = self.run(environment, HEALTH_CHECK)

    def written(self) -> list[str]:
        """Return the files that the image's user owns outside the declared volumes."""
        root = Path(buildah("mount", self.name))
        user, volumes = self.image.config["User"].partition(":")[0], self.image.config["Volumes"]
        pruned = [word for one in volumes for word in ("-path", f"{root}{one}", "-prune", "-o")]
        command = ["find", str(root), "-xdev", *pruned, "-user", user, "-print"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        buildah("umount", self.name)
        return found.splitlines()


@contextlib.contextmanager
def container(image: Image, volume: Path, place: str | Path = VOLUME) -> Iterator[Container]:
    """Make a container with ``volume`` where the image writes, or at another ``place``."""
    name = buildah("from", "--pull-never", image.tag)
    try:
        yield Container(name, image, volume, place)
    finally:
        buildah("rm", name)


def lay_out(volume: Path) -> str:
    """Fill what containers share with a model, an empty store and a file of keys; return a key that may do
    everything."""
    write_tiny_model(volume / "model")
    for file in (volume / "model").iterdir():
        file.chmod(0o644)  # safetensors lets only its writer read
    key = secrets.token_urlsafe(32)
    entry = {"sha256": hashlib.sha256(key.encode()).hexdigest(), "roles": list(Role)}
    (volume / "keys.yaml").write_text(json.dumps({"keys": {"ops": entry}}), encoding="utf-8")
    for folder in (volume, volume / "store"):
        folder.mkdir(exist_ok=True)
        folder.chmod(0o777)  # the image's user is none of this machine's
    return key


def signing(volume: Path, services: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return by service what signs and verifies commands; the public keys lie in what containers share."""
    keys = CommandKeys(volume)
    keys.file.chmod(0o644)
    public = {"TUNEWHEEL_SIGNING_KEYS_FILE": f"{VOLUME}/{keys.file.name}"}
    return {service: keys.environment(service) | public for service in services}


def environment(kafka: str, *, port: int, health_port: int) -> dict[str, str]:
    """Return what a service is told, callers aside."""
    return {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_HTTP_PORT": str(port),
        "TUNEWHEEL_HEALTH_PORT": str(health_port),
        "TUNEWHEEL_STORE_URL": f"file://{VOLUME}/store",
        "TUNEWHEEL_BASE_MODEL": f"{VOLUME}/model",
    }
