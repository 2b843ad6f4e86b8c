"""The Dockerfile and the compose files, as their tests read them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy/images/Dockerfile"
COMPOSE = ROOT / "deploy/compose"
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)?\}")


@dataclass(frozen=True)
class Stage:
    """One stage of the Dockerfile: what it begins from, and its instructions, lines that go on joined."""

    base: str
    steps: tuple[tuple[str, str], ...]

    def of(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.steps if name == instruction]


def stages() -> dict[str, Stage]:
    """Return the stages by name, in their order."""
    lines = (line for line in DOCKERFILE.read_text("utf-8").splitlines() if not line.startswith("#"))
    text = "\n".join(lines).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for block in re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]:
        head, *rest = filter(None, map(str.strip, block.splitlines()))
        base, _, name = head.partition(" AS ")
        steps = tuple((line.split(" ", 1)[0], line.partition(" ")[2].strip()) for line in rest)
        found[name] = Stage(base, steps)
    return found


def image_environment(stage: str) -> dict[str, str]:
    """Return what ``ENV`` sets in ``stage`` and in those that it begins from."""
    all_of_them = stages()
    told: dict[str, str] = {}
    chain = [stage]
    while (base := all_of_them[chain[-1]].base) in all_of_them:
        chain.append(base)
    for name in reversed(chain):
        for text in all_of_them[name].of("ENV"):
            told |= dict(one.split("=", 1) for one in shlex.split(text))
    return told


def compose(name: str = "compose.yaml", **variables: str) -> dict[str, Any]:
    """Return a compose file as ``docker compose`` reads it, without the shell's variables but for
    ``variables``."""

    def told(found: re.Match[str]) -> str:
        return variables.get(found[1], found[2] or "")

    return yaml.safe_load(_VARIABLE.sub(told, (COMPOSE / name).read_text("utf-8")))
