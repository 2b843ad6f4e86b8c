"""The compose files, as Docker Compose itself reads them.

Where the machine has no Docker Compose, Go builds it once from its source (minutes), below ``var/tools``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ..contract.deployment import COMPOSE, ROOT, compose

MODULE = "github.com/docker/compose/v2@v2.40.3"
TOOL = ROOT / "var/tools" / MODULE.rpartition("/")[2] / "docker-compose"


@pytest.fixture(scope="session")
def docker_compose() -> list[str]:
    """The command."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return [docker, "compose"]
    if not TOOL.exists():
        if shutil.which("go") is None:
            pytest.skip("neither Docker Compose nor Go, which would build it, is here")
        source = json.loads(_run("go", "mod", "download", "-json", MODULE))["Dir"]
        TOOL.parent.mkdir(parents=True, exist_ok=True)
        _run("go", "build", "-C", source, "-o", str(TOOL), "./cmd")
    return [str(TOOL)]


def _run(*command: str, **environment: str) -> str:
    told = {"PATH": os.environ["PATH"], "HOME": str(Path.home())} | environment
    passed = {name: value for name, value in os.environ.items() if name.startswith(("GO", "SSL", "HTTP"))}
    done = subprocess.run(command, cwd=COMPOSE, env=passed | told, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture
def secrets() -> None:
    """Files that Compose wants to read: made where a checkout has none yet."""
    subprocess.run([COMPOSE / "make_secrets.sh"], check=True, capture_output=True)


@pytest.mark.usefixtures("secrets")
def test_compose_reads_the_file_as_the_other_tests_do(docker_compose: list[str]) -> None:
    told = json.loads(_run(*docker_compose, "--profile", "*", "config", "--format", "json"))
    ours = compose()
    assert told["services"].keys() == ours["services"].keys()
    for name, service in ours["services"].items():
        assert (told["services"][name].get("environment") or {}) == service.get("environment", {}), name


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("name", ["compose.gpu.yaml", "compose.s3.yaml", "compose.vllm.yaml"])
def test_compose_takes_the_files_beside_it(name: str, docker_compose: list[str], tmp_path: Path) -> None:
    bucket = COMPOSE / "secrets/s3.env"
    bucket.touch()
    files = ("-f", "compose.yaml", "-f", name)
    told = json.loads(_run(*docker_compose, *files, "config", "--format", "json", STORE_URL="s3://bucket"))
    train = told["services"]["train"]
    if name == "compose.gpu.yaml":
        assert train["deploy"]["resources"]["reservations"]["devices"]
    elif name == "compose.s3.yaml":
        assert train["environment"]["TUNEWHEEL_STORE_URL"] == "s3://bucket"
    else:
        assert told["services"]["serve-gateway"]["environment"]["TUNEWHEEL_ENGINE_URL"].startswith("dns+")
    assert train["environment"]["TUNEWHEEL_BOOTSTRAP_SERVERS"] == "kafka:9092"
