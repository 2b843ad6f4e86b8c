"""Each service installs by the lines of its image, and its ``main`` imports with nothing else around.

Two services are installed in truth, one with torch and one without; all images have the same lines. Every
``main`` is imported where only the distributions of its lock can be found. That the images themselves build
and start is shown by ``make test-images``.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from . import locked_imports
from .deployment import stages

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv/bin/uv"))
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
INSTALLED = [ROOT / "services" / name for name in ("train", "monitor")]
MEMBERS = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for pattern in ("*/pyproject.toml", "services/*/pyproject.toml")
    for path in ROOT.glob(pattern)
)
"""The folders of the workspace's packages."""
HEAVY = {"train", "eval", "engine"}
"""They bring torch: gigabytes, which uv links from its cache where that is on the same disk."""
BANNED = ("torch", "transformers", "peft", "trl")
TOKENIZES = {"console", "curate"}
"""They have transformers for tokenizers and chat templates, without torch, and import it where needed."""
WHAT_WORKS = {"train": ("tunewheel_train.trainers.grpo_trainer", "tunewheel_embedding.static")}
"""What a service's processes import beside its ``main``, of packages that only an extra brings."""
PROBE = """
import importlib, importlib.util, json, sys
banned, modules = map(json.loads, sys.argv[1:])
for module in modules:
    importlib.import_module(module)
print(json.dumps({
    "installed": [name for name in banned if importlib.util.find_spec(name)],
    "imported": [name for name in banned if name in sys.modules],
    "prefix": sys.prefix,
}))
"""


class Workshop:
    """Where the services are installed one after the other, each with nothing of the others around."""

    def __init__(self, folder: Path) -> None:
        self.environment, self.bytecode = folder / "app", folder / "bytecode"
        self._sources, self._install = folder / "src", folder / "install"
        self._stages = stages()

    def build_wheels(self) -> Path:
        """Do what the images' stage ``wheels`` does; return the folder of the wheels."""
        self._sources.mkdir()
        ignored = shutil.ignore_patterns(*(".*", "__pycache__", "tests", "var", "node_modules", "vendored"))
        for name in ("pyproject.toml", "requirements.lock", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, self._sources / name)
        for name in ("examples", *MEMBERS):
            shutil.copytree(ROOT / name, self._sources / name, ignore=ignored)
        wheels = self._install / "wheels"
        (command,) = self._stages["wheels"].of("RUN")
        self._do(command.replace("/wheels", str(wheels)), self._sources)
        return wheels

    def install(self, service: Path) -> None:
        """Do what the images' stage ``app`` does, in place of the service before. uv is the machine's, keeps
        its cache, and compiles no module that nobody imports."""
        shutil.rmtree(self.environment, ignore_errors=True)
        for file in (ROOT / "pyproject.toml", service / "requirements.lock"):
            shutil.copy(file, self._install)
        for command in self._stages["app"].of("RUN"):
            told = command.replace("/app", str(self.environment)).replace("--compile-bytecode", "")
            told = told.replace(" venv ", f" venv --python {sys.executable} ")
            self._do(told.replace("${SERVICE}", service.name), self._install)

    def _do(self, command: str, folder: Path) -> None:
        assert UV is not None
        _run("sh", "-euc", re.sub(r"\buv (?=[a-z])", f"{UV} --quiet ", command), cwd=folder)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    # A name that was never there before: by it, uv would find what an earlier session had built.
    made = Workshop(tmp_path_factory.mktemp(f"workshop-{secrets.token_hex(4)}"))
    yield made
    shutil.rmtree(made.environment, ignore_errors=True)


@pytest.fixture(scope="module")
def wheels(workshop: Workshop) -> Path:
    return workshop.build_wheels()


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    environment |= {"SOURCE_DATE_EPOCH": "315532800"}  # an argument of the image: here ZIP's first day
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.mark.integration
@pytest.mark.nightly("matrices")
@pytest.mark.skipif(UV is None, reason="uv is not installed; make install does")
@pytest.mark.usefixtures("wheels")
@pytest.mark.parametrize("service", INSTALLED, ids=lambda path: path.name)
def test_a_service_installs_as_in_its_image_and_starts_to_import(
    service: Path, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.install(service)
    python = (_python(workshop.environment), "-I", "-X", f"pycache_prefix={workshop.bytecode}")
    modules = [_main_of(service), *WHAT_WORKS.get(service.name, ())]
    told = map(json.dumps, (BANNED, modules))
    seen = json.loads(_run(*python, "-c", PROBE, *told, cwd=tmp_path))
    assert Path(seen["prefix"]).resolve() == workshop.environment.resolve()
    if service.name in HEAVY:
        assert "torch" in seen["installed"]
    else:
        assert seen["installed"] == seen["imported"] == []


@pytest.mark.integration
@pytest.mark.nightly("matrices")
@pytest.mark.skipif(UV is None, reason="uv is not installed; make install does")
def test_the_distribution_tunewheel_brings_the_command_all_services_and_the_example(wheels: Path) -> None:
    """``pip install tunewheel``: what it asks for are wheels of the same version, one for each package."""
    (whole,) = wheels.glob("tunewheel-*.whl")
    with zipfile.ZipFile(whole) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
        (scripts,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert "tunewheel = tunewheel_cli.main:app" in scripts
    assert "tunewheel_example/helpdesk/project.yaml" in names
    needed = [Requirement(line.removeprefix("Requires-Dist: ")) for line in metadata.splitlines()
              if line.startswith("Requires-Dist: ")]  # fmt: skip
    assert {one.name for one in needed} == {
        "tunewheel-cli",
        "tunewheel-demo",
        *(f"tunewheel-{one.name}" for one in SERVICES),
    }
    version = whole.name.split("-")[1]
    assert {str(one.specifier) for one in needed} == {f"=={version}"}
    built = {path.name.split("-")[0] for path in wheels.glob(f"*-{version}-py3-none-any.whl")}
    assert built == {"tunewheel", *(f"tunewheel_{Path(one).name.replace('-', '_')}" for one in MEMBERS)}


def _main_of(service: Path) -> str:
    return f"tunewheel_{service.name.replace('-', '_')}.main"


def _pyproject(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))


def _needed(folder: Path) -> set[str]:
    """Return the folders of the workspace's packages that ``folder``'s package needs, and its own."""
    ours = {_pyproject(path.parent)["project"]["name"]: path.parent for path in ROOT.glob("*/pyproject.toml")}
    required = {Requirement(text).name for text in _pyproject(folder)["project"]["dependencies"]}
    inner = [_needed(ours[name]) for name in required & {*ours}]
    return {folder.relative_to(ROOT).as_posix()}.union(*inner)


@pytest.fixture(scope="module")
def imports(read_lock: Callable[[Path], Any]) -> dict[str, dict[str, Any]]:
    """What came of importing each service's ``main``, by the service's name; ``bad``: of one that lacks what
    it needs."""
    asked = {service.name: _asked(service, read_lock) for service in SERVICES}
    asked["launcher"] = _asked(ROOT / "services/train", read_lock, lock="launcher.lock")
    asked["bad"] = asked["ingest"] | {"distributions": {*asked["ingest"]["distributions"]} - {"fastapi"}}
    command = [sys.executable, "-I", locked_imports.__file__]
    told = json.dumps([one | {"distributions": sorted(one["distributions"])} for one in asked.values()])
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(asked, json.loads(done.stdout), strict=True))


def _asked(
    service: Path, read_lock: Callable[[Path], Any], *, lock: str = "requirements.lock"
) -> dict[str, Any]:
    ours = {f"tunewheel-{name.rpartition('/')[2]}" for name in _needed(service)}
    locked = {name for name, _ in read_lock(service / lock)}
    return {"module": _main_of(service), "distributions": ours | locked}


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_services_main_imports_with_what_its_lock_holds(
    service: Path, imports: dict[str, dict[str, Any]], read_lock: Callable[[Path], Any]
) -> None:
    told = imports[service.name]
    assert "imported" in told, told
    assert _main_of(service).partition(".")[0] in told["imported"]
    if service.name not in HEAVY:
        locked = {name for name, _ in read_lock(service / "requirements.lock")}
        assert {*BANNED} & locked == ({"transformers"} if service.name in TOKENIZES else set())
        assert not {*BANNED} & {*told["imported"]}


def test_trains_main_imports_with_what_the_launchers_lock_holds(imports: dict[str, dict[str, Any]]) -> None:
    told = imports["launcher"]
    assert "tunewheel_train" in told["imported"], told


def test_what_a_lock_lacks_is_not_found(imports: dict[str, dict[str, Any]]) -> None:
    assert imports["bad"] == {"error": "ModuleNotFoundError: No module named 'fastapi'"}
