"""Each service installs alone, from its own lock, and its ``main`` imports with nothing else around."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(ROOT / ".uv/bin/uv")
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
SHARED = ("contracts", "runtime", "basemodel", "redaction")
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


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _inner(folder: Path) -> set[str]:
    """Return the names of the workspace packages that ``folder`` needs, its own included."""
    project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {d.partition("[")[0] for d in project["dependencies"] if d.startswith("tunewheel-")}
    found = {project["name"]}
    for name in needed:
        found |= _inner(ROOT / name.removeprefix("tunewheel-"))
    return found


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel of every workspace package, built by the hatchling of this environment."""
    folder = tmp_path_factory.mktemp("wheels")
    for project in (*SERVICES, *(ROOT / name for name in SHARED)):
        _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=project)
    assert len(list(folder.glob("*.whl"))) == len(SERVICES) + len(SHARED)
    return folder


@pytest.mark.skipif(UV is None, reason="uv is not installed; make install does")
@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_installs_alone_and_starts_to_import(service: Path, wheels: Path, tmp_path: Path) -> None:
    module = f"tunewheel_{service.name.replace('-', '_')}"
    if not (service / "src" / module / "main.py").is_file():
        pytest.skip(f"{service.name} has no main.py yet")
    assert UV is not None
    environment = tmp_path / "venv"
    _run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=tmp_path)
    into = ("--quiet", "--python", _python(environment))
    lock = service / "requirements.lock"
    _run(UV, "pip", "sync", *into, "--require-hashes", lock, cwd=tmp_path)
    own = [next(wheels.glob(f"{name.replace('-', '_')}-*.whl")) for name in sorted(_inner(service))]
    _run(UV, "pip", "install", *into, "--no-deps", *own, cwd=tmp_path)
    seen = json.loads(
        _run(_python(environment), "-I", "-c", PROBE, f"{module}.main", json.dumps(BANNED), cwd=tmp_path)
    )
    assert Path(seen["prefix"]).resolve() == environment.resolve()
    if service.name in HEAVY:
        assert "torch" in seen["installed"]
    else:
        assert seen["installed"] == (["transformers"] if service.name in TOKENIZES else [])
        assert seen["imported"] == []
    shutil.rmtree(environment)
