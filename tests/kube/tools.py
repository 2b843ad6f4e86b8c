"""What the tests of the chart run, and on which files."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CRDS = HERE / "crds"
HELM_FOLDER = HERE.parents[1] / "deploy" / "helm"
EXAMPLES = {path.stem: path for path in sorted((HELM_FOLDER / "examples").glob("*.yaml"))}
TOOLS = Path(os.environ.get("KUBE_TOOLS", Path.home() / ".cache" / "tunewheel-kube"))
"""The folder of the binaries that ``build.sh`` makes."""


def run(*command: str, fails: bool = False) -> str:
    """Run a command that must succeed, or fail, and return what it prints, or complains of."""
    done = subprocess.run(command, capture_output=True, text=True)
    told = f"{' '.join(command)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert (done.returncode != 0) == fails, told
    return done.stdout + done.stderr if fails else done.stdout
