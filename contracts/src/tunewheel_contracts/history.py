"""Reads earlier schemas from git."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tunewheel_contracts.generation.schemas import FOLDER

BRANCHES = ("origin/main", "main")


class UnknownRef(Exception):
    """A git ref that this checkout does not have."""


def base_commit(root: Path) -> str | None:
    """Return the commit to compare with: the merge base with main, or on main itself the parent commit.

    None: there is no earlier commit, or git is missing.
    """
    head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD")
    if head is None:
        return None
    for branch in BRANCHES:
        base = _git(root, "merge-base", branch, "HEAD")
        if base and base != head:
            return base
    return _git(root, "rev-parse", "--verify", "--quiet", "HEAD~1")


def schemas_at(root: Path, ref: str) -> dict[str, dict[str, Any]]:
    """Return the schemas, by name, as committed at ``ref``; empty if that commit has none.

    Raises:
        UnknownRef: there is no such commit.
    """
    if _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}") is None:
        raise UnknownRef(f"--against {ref}: no such commit here; fetch it or name another")
    listing = _git(root, "ls-tree", "-r", "--name-only", "--full-tree", ref, f"{FOLDER}/") or ""
    found: dict[str, dict[str, Any]] = {}
    for path in listing.splitlines():
        text = _git(root, "show", f"{ref}:{path}")
        if path.endswith(".json") and text is not None:
            found[Path(path).stem] = json.loads(text)
    return found


def _git(root: Path, *arguments: str) -> str | None:
    """Return git's output without the last newline; None if git failed or is missing."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
