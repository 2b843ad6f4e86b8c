"""Each service installs by the lines of its image, and its ``main`` imports with nothing else around.

That the images themselves build and start is shown by ``make test-images``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv/bin/uv"))
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
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


def _replay(service: Path, folder: Path) -> Path:
    """Do in ``folder`` what the first stage of the service's image does; returns its environment.

    uv is the machine's and keeps its cache; all else is to the letter.
    """
    environment, sources = folder / "app", folder / "src"
    assert UV is not None
    for instruction, arguments in _steps(service / "Dockerfile"):
        if instruction == "WORKDIR":
            sources.mkdir()
        elif instruction == "COPY":
            *copied, into = arguments.split()
            for name in copied:
                _copy(ROOT / name, sources / into / (name.rpartition("/")[2] if into == "./" else ""))
        elif instruction == "RUN" and not arguments.startswith("pip install"):
            command = re.sub(r"\buv\b", UV, arguments).replace("/app", str(environment))
            command = command.replace(" venv ", f" venv --python {sys.executable} ")
            _run("sh", "-euc", command.replace("--no-cache", "--quiet"), cwd=sources)
    return environment


def _copy(source: Path, target: Path) -> None:
    """Copy a file, or the files of a folder that an image would be given."""
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(".venv", "var", "__pycache__"))
    else:
        shutil.copy(source, target)


def _run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH"}}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _python(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


@pytest.mark.skipif(UV is None, reason="uv is not installed; make install does")
@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_installs_as_in_its_image_and_starts_to_import(service: Path, tmp_path: Path) -> None:
    module = f"tunewheel_{service.name.replace('-', '_')}"
    environment = _replay(service, tmp_path)
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
