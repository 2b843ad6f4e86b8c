"""A release that ``make release`` writes, and what checks one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv/bin/uv"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
SIGNING = ("tool", "run", "--quiet", "--from", "model-signing==1.1.1", "--with", "pyopenssl", "model_signing")


def run(*command: str | Path, cwd: Path, code: int = 0, **environment: str) -> str:
    told = {
        k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH", "KEY"}
    } | environment
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=told, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == code, f"{' '.join(map(str, command))}\n{said[-6000:]}"
    return said


def release(folder: Path, **environment: str) -> Path:
    told = {"UV": str(UV), "OUT": str(folder), "PYTHON": sys.executable} | environment
    run(ROOT / "scripts/release.sh", VERSION, cwd=ROOT, **told)
    return folder


def verification(folder: Path, signature: Path, public: Path) -> tuple[str | Path, ...]:
    return (
        str(UV), *SIGNING, "verify", "key", folder, "--no-ignore-git-paths", "--signature", signature,
        "--public_key", public,
    )  # fmt: skip


def key_pair(folder: Path) -> tuple[Path, Path]:
    """Make a private key, and the public one, by the page's commands."""
    private, public = folder / "private.pem", folder / "public.pem"
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private, cwd=folder)
    run("openssl", "ec", "-in", private, "-pubout", "-out", public, cwd=folder)
    return private, public
