"""Each service installs by the lines of its image, and its ``main`` imports with nothing else around.

Two services are installed in truth, one with torch and one without. All images have the same lines, but for
the names of the packages that a service needs. Every ``main`` is imported where only the distributions of its
lock can be found. That the images themselves build and start is shown by ``make test-images``.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from . import locked_imports

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv/bin/uv"))
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
OPTIONS = "--no-cache --no-deps --no-sources"
INSTALLED = [ROOT / "services" / name for name in ("eval", "monitor")]
HEAVY = {"train", "eval", "engine"}
"""They bring torch: gigabytes, which uv links from its cache where that is on the same disk."""
BANNED = ("torch", "transformers", "peft", "trl")
TOKENIZES = {"curate"}
"""Has transformers for tokenizers and chat templates, without torch, and imports it in builds alone."""
PROBE = """
import importlib, importlib.util, json, sys
importlib.import_module(sys.argv[1])
banned = json.loads(sys.argv[2])
print(json.dumps({
    "installed": [name for name in banned if importlib.util.find_spec(name)],
    "imported": [name for name in banned if name in sys.modules],
    "prefix": sys.prefix,
}))
"""


def _steps(dockerfile: Path) -> Iterator[tuple[str, str]]:
    """Yield (instruction, arguments) of an image's first stage, lines that go on joined."""
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    stage = re.split(r"^FROM .*$", text, flags=re.MULTILINE)[1]
    for line in filter(None, map(str.strip, stage.splitlines())):
        instruction, _, arguments = line.partition(" ")
        yield instruction, arguments


class Workshop:
    """Where the services are installed one after the other, each with nothing of the others around.

    Every service has the same paths: so uv finds the packages that it built for the one before, and Python
    the modules that it compiled.
    """

    def __init__(self, folder: Path) -> None:
        self.environment, self.bytecode = folder / "app", folder / "bytecode"
        self._sources, self._shelf = folder / "src", folder / "shelf"
        self._copied: list[str] = []

    def clear(self) -> None:
        """Take the environment and the sources of the service before away."""
        shutil.rmtree(self.environment, ignore_errors=True)
        for name in self._copied:
            (kept := self._shelf / name).parent.mkdir(parents=True, exist_ok=True)
            (self._sources / name).rename(kept)
        self._copied.clear()
        shutil.rmtree(self._sources, ignore_errors=True)

    def replay(self, service: Path) -> None:
        """Do what the first stage of the service's image does. uv is the machine's and keeps its cache; all
        else is to the letter."""
        assert UV is not None
        for instruction, arguments in _steps(service / "Dockerfile"):
            if instruction == "WORKDIR":
                self._sources.mkdir()
            elif instruction == "COPY":
                *copied, into = arguments.split()
                for name in copied:
                    self._copy(ROOT / name, name.rpartition("/")[2] if into == "./" else into)
            elif instruction == "RUN" and not arguments.startswith("pip install"):
                command = re.sub(r"\buv\b", UV, arguments).replace("/app", str(self.environment))
                command = command.replace(" venv ", f" venv --python {sys.executable} ")
                _run("sh", "-euc", command.replace("--no-cache", "--quiet"), cwd=self._sources)

    def _copy(self, source: Path, name: str) -> None:
        """Copy a file, or the files of a folder that an image would be given."""
        target, kept = self._sources / name, self._shelf / name
        if not source.is_dir():
            shutil.copy(source, target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if kept.exists():
            kept.rename(target)
        else:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns(".venv", "var", "__pycache__"))
        self._copied.append(name)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    # A name that was never there before: by it, uv would find what an earlier session had built.
    made = Workshop(tmp_path_factory.mktemp(f"workshop-{secrets.token_hex(4)}"))
    yield made
    made.clear()


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.mark.skipif(UV is None, reason="uv is not installed; make install does")
@pytest.mark.parametrize("service", INSTALLED, ids=lambda path: path.name)
def test_a_service_installs_as_in_its_image_and_starts_to_import(
    service: Path, workshop: Workshop, tmp_path: Path
) -> None:
    workshop.clear()
    workshop.replay(service)
    python = (_python(workshop.environment), "-I", "-X", f"pycache_prefix={workshop.bytecode}")
    seen = json.loads(_run(*python, "-c", PROBE, _main_of(service), json.dumps(BANNED), cwd=tmp_path))
    assert Path(seen["prefix"]).resolve() == workshop.environment.resolve()
    if service.name in HEAVY:
        assert "torch" in seen["installed"]
    else:
        assert seen["installed"] == seen["imported"] == []


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


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_an_image_is_made_like_every_other_of_what_its_service_needs(service: Path) -> None:
    needed = _needed(service)
    steps = list(_steps(service / "Dockerfile"))
    head, copies, (_, install) = steps[:4], steps[4:-1], steps[-1]
    assert head == [
        ("RUN", 'pip install --no-cache-dir "uv>=0.9"'),
        ("WORKDIR", "/src"),
        ("COPY", f"services/{service.name}/requirements.lock ./"),
        ("RUN", "uv venv /app && VIRTUAL_ENV=/app uv pip sync --no-cache --require-hashes requirements.lock"),
    ]
    assert sorted(copies) == sorted(("COPY", f"{name} {name}") for name in needed)
    command, *places = install.split(" ./")
    assert command.split() == f"VIRTUAL_ENV=/app uv pip install {OPTIONS}".split()
    assert {place.strip() for place in places} == needed
    for folder in map(ROOT.joinpath, needed):
        built, package = _pyproject(folder), folder.name.replace("-", "_")
        assert built["build-system"] == {"requires": ["hatchling"], "build-backend": "hatchling.build"}
        packages = {"packages": [f"src/tunewheel_{package}"]}
        assert built["tool"]["hatch"] == {"build": {"targets": {"wheel": packages}}}


@pytest.fixture(scope="module")
def imports(read_lock: Callable[[Path], Any]) -> dict[str, dict[str, Any]]:
    """What came of importing each service's ``main``, by the service's name; ``bad``: of one that lacks what
    it needs."""
    asked = {service.name: _asked(service, read_lock) for service in SERVICES}
    asked["bad"] = asked["ingest"] | {"distributions": {*asked["ingest"]["distributions"]} - {"fastapi"}}
    command = [sys.executable, "-I", locked_imports.__file__]
    told = json.dumps([one | {"distributions": sorted(one["distributions"])} for one in asked.values()])
    done = subprocess.run(command, input=told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip(asked, json.loads(done.stdout), strict=True))


def _asked(service: Path, read_lock: Callable[[Path], Any]) -> dict[str, Any]:
    ours = {f"tunewheel-{name.rpartition('/')[2]}" for name in _needed(service)}
    locked = {name for name, _ in read_lock(service / "requirements.lock")}
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


def test_what_a_lock_lacks_is_not_found(imports: dict[str, dict[str, Any]]) -> None:
    assert imports["bad"] == {"error": "ModuleNotFoundError: No module named 'fastapi'"}
