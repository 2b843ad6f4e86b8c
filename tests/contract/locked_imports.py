"""Imports modules as if nothing were installed but the distributions named for each.

Run as ``python -I locked_imports.py``. Standard input holds JSON: a list of {"module": name, "distributions":
names}. Standard output gets, for each, {"imported": third-party modules} or {"error": what failed}.

What all of them have is imported once; each module is then imported in a fork, which costs a fifth of a
process of its own.
"""

from __future__ import annotations

import csv
import gc
import importlib
import json
import os
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import Distribution, DistributionFinder, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = ("tunewheel_runtime.process", "tunewheel_runtime.service", "tunewheel_contracts.topics")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def owners() -> dict[str, str]:
    """Return the distribution of every file of code that is installed, by the file's path."""
    found: dict[str, str] = {}
    for one in distributions():
        # As texts: ``files`` makes two objects of each of a hundred thousand paths, which takes ten seconds.
        folder, name = str(one.locate_file("")), normal(one.metadata["Name"])
        for file, *_ in csv.reader((one.read_text("RECORD") or "").splitlines()):
            if file.endswith((".py", ".so", ".pyd")):
                found[os.path.join(folder, file)] = name
    for sources in (*ROOT.glob("*/src/tunewheel_*"), *ROOT.glob("services/*/src/tunewheel_*")):
        found |= {str(file): normal(f"tunewheel-{sources.parents[1].name}") for file in sources.rglob("*.py")}
    return found


class Locked:
    """Finds on ``sys.path`` what belongs to ``allowed`` distributions, and nothing else."""

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed, self._owners = allowed, owners()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target)
        owner = self._owners.get(spec.origin or "") if spec else None
        return spec if owner is None or owner in self.allowed else None

    def find_distributions(
        self, context: DistributionFinder.Context = DistributionFinder.Context()
    ) -> Iterator[Distribution]:
        return (
            d for d in PathFinder.find_distributions(context) if normal(d.metadata["Name"]) in self.allowed
        )


def tried(module: str) -> dict[str, Any]:
    try:
        importlib.import_module(module)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"imported": sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names)}


def in_a_fork(finder: Locked, module: str, allowed: Collection[str]) -> dict[str, Any]:
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        finder.allowed = allowed
        os.write(writing, json.dumps(tried(module)).encode())  # some kilobytes: a pipe takes more
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = answer.read()
    os.waitpid(child, 0)
    return json.loads(told)


def main() -> None:
    asked = json.load(sys.stdin)
    gc.disable()  # it would find nothing to free
    finder = Locked(set.intersection(*(set(one["distributions"]) for one in asked)))
    sys.meta_path[sys.meta_path.index(PathFinder)] = finder
    for module in SHARED:
        importlib.import_module(module)
    print(json.dumps([in_a_fork(finder, one["module"], set(one["distributions"])) for one in asked]))


if __name__ == "__main__":
    main()
