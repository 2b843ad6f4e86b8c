"""The one Dockerfile: for every service the same lines, nothing as root, nothing that only one machine has.

That images build from it and get ready is shown by ``make test-images``.
"""

from __future__ import annotations

import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from .deployment import DOCKERFILE, ROOT, SERVICES, image_environment, stages
from .test_settings_named import settings_of


def test_the_last_stages_run_as_a_user_with_a_number() -> None:
    found = stages()
    assert list(found)[-1] == "service", "what a build without --target makes"
    for name in ("service", "cli"):
        assert found[name].base == "base"
        assert found[name].of("USER") == ["10001:10001"]
        assert found[name].of("CMD")
    assert found["service"].of("HEALTHCHECK")


def test_bases_are_one_build_argument_and_pinned() -> None:
    text = DOCKERFILE.read_text("utf-8")
    (base,) = re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", text, re.MULTILINE)
    assert re.fullmatch(r"docker\.io/library/python:3\.\d+\.\d+-slim-\w+", base)
    known = {"${PYTHON_IMAGE}", *stages()}
    assert {stage.base for stage in stages().values()} <= known
    assert re.search(r"^ARG UV_VERSION=\d+\.\d+\.\d+$", text, re.MULTILINE)


def test_labels_tell_what_an_image_is() -> None:
    (labels,) = stages()["base"].of("LABEL")
    told = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels))
    assert {"title", "description", "version", "revision", "licenses"} <= told


def test_a_package_comes_from_the_lock_or_from_this_checkout() -> None:
    """uv then resolves what a service needs of the workspace: a package that is forgotten ends the build."""
    app = " ".join(stages()["app"].of("RUN"))
    assert "uv pip sync" in app
    assert "--require-hashes requirements.lock" in app
    assert '--no-index --find-links wheels "tunewheel-${SERVICE}${extra}"' in app
    (wheels,) = stages()["wheels"].of("RUN")
    assert "--all-packages" in wheels
    assert "--build-constraints requirements.lock --require-hashes" in wheels


def test_the_image_that_trains_has_the_extra_of_what_trains(tmp_path: Path) -> None:
    """The launcher's lock lacks what the extra needs, and no other service has the extra."""
    (command,) = (one for one in stages()["app"].of("RUN") if one.startswith("extra="))
    taken = set[str]()
    for lock in (*ROOT.glob("services/*/*.lock"), ROOT / "cli/requirements.lock"):
        (tmp_path / "requirements.lock").write_bytes(lock.read_bytes())
        told = ["sh", "-c", f'{command.partition(" && ")[0]} && echo "$extra"']
        extra = subprocess.run(told, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.strip()
        assert extra in ("", "[worker]")
        taken |= {lock.relative_to(ROOT).as_posix()} if extra else set()
    assert taken == {"services/train/requirements.lock"}


def test_the_images_with_torch_take_it_from_one_stage(tmp_path: Path) -> None:
    """The stage is the same of all of them, or each would bring its own 5 GB; other images take nothing."""
    (command,) = stages()["gpu-lock"].of("RUN")
    taken: dict[str, str] = {}
    for lock in (*ROOT.glob("services/*/*.lock"), ROOT / "cli/requirements.lock"):
        (tmp_path / "requirements.lock").write_bytes(lock.read_bytes())
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
        taken[lock.relative_to(ROOT).as_posix()] = (tmp_path / "gpu.lock").read_text("utf-8")
    found = {lock for lock, text in taken.items() if text}
    assert found == {f"services/{name}/requirements.lock" for name in ("engine", "eval", "train")}
    (text,) = {taken[lock] for lock in found}
    packages = re.findall(r"^([a-z0-9-]+)==\S+ (?:; [^\\]+)?\\\n(?=    --hash=sha256:)", text, re.MULTILINE)
    assert {"torch", "triton", "nvidia-cublas", "cuda-bindings", "bitsandbytes"} <= set(packages)
    assert len(packages) == len(re.findall(r"^\S", text, re.MULTILINE))
    (installed,) = stages()["gpu"].of("RUN")
    assert "--require-hashes" in installed
    base = stages()["base"].steps
    first = next(i for i, step in enumerate(base) if "SERVICE" in step[1])
    assert ("COPY", "--from=gpu /app /app") in base[:first]


def test_what_is_built_reaches_the_builder() -> None:
    """No pattern hides a source, a lock or the example from the build."""
    ignored = [line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text("utf-8").split()]
    needed = ["pyproject.toml", "requirements.lock", "README.md", "LICENSE", "examples/helpdesk/project.yaml"]
    for pattern in ("src/**/*.py", "pyproject.toml", "*.lock"):
        found = [*ROOT.glob(f"[a-z]*/{pattern}"), *ROOT.glob(f"services/*/{pattern}")]
        needed += [path.relative_to(ROOT).as_posix() for path in found]
    assert len(needed) > 500

    def is_hidden(path: str) -> bool:
        return any(fnmatch(part, pattern) for part in path.split("/") for pattern in ignored)

    assert is_hidden("cli/tests/test_main.py")
    assert [path for path in needed if is_hidden(path)] == []


@pytest.mark.parametrize("stage", ["service", "cli"])
def test_all_that_is_written_lies_in_a_volume(stage: str) -> None:
    (text,) = stages()["base"].of("VOLUME")
    volumes = re.findall(r'"([^"]+)"', text)
    environment = image_environment(stage)
    paths = {name: value for name, value in environment.items() if value.startswith("/") and name != "PATH"}
    assert {"HOME", "TMPDIR", "TUNEWHEEL_CACHE_DIR", "KF_RULE_CACHE_DIR"} <= paths.keys()
    for name, value in paths.items():
        assert any(Path(value).is_relative_to(volume) for volume in volumes), f"{name}={value}"


def test_the_environment_is_one_that_services_read() -> None:
    environment = image_environment("service")
    told = {name for name in environment if name.startswith("TUNEWHEEL_")}
    assert environment["OPENBLAS_NUM_THREADS"] == "1"
    assert {"TUNEWHEEL_HTTP_HOST", "TUNEWHEEL_HEALTH_PORT", "TUNEWHEEL_STORE_URL"} <= told
    for service in SERVICES:
        if service.name != "engine":  # which keeps nothing
            assert told <= settings_of(service), service.name
