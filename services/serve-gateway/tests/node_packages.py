"""Node, and the packages that ``make node-packages`` installs for it from the lock beside ``node/``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

INSTALLED = Path(__file__).resolve().parents[3] / "var/node/node_modules"


def node_command(folder: Path, source: str) -> list[str]:
    """Return how to run ``source`` as a module of Node's, which is put into ``folder``; skip the test where
    this machine has no Node."""
    program = shutil.which("node")
    if program is None:
        pytest.skip("this machine has no node")
    if not (INSTALLED / "openai/package.json").is_file():
        pytest.fail("the packages for node are not installed; run: make node-packages")
    (folder / "node_modules").symlink_to(INSTALLED)  # Node looks for packages beside the script
    script = folder / "script.mjs"
    script.write_text(source, encoding="utf-8")
    return [program, str(script)]
