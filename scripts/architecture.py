"""Draws the pictures of docs/architecture.md from the code: topics, packages, folders, turns, curate's steps.

PYTHONPATH=testing python scripts/architecture.py            write the page anew
PYTHONPATH=testing python scripts/architecture.py --check    change nothing; exit 1 when a picture is stale
"""

from __future__ import annotations

import argparse
import re
import tomllib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from tunewheel_contracts.topics import NOT_SHOWN, TOPICS
from tunewheel_curate.steps import STEPS
from tunewheel_testing.random_logs import random_log
from tunewheel_wheel.turn import TurnEnd, TurnStage
from tunewheel_wheel.wheel import Wheel

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
LOGS = 1000
"""So many random logs show every way of a turn that is drawn."""
PEOPLE = ("upstream", "cli", "console")
"""Where events come from that begin something. Their topics are in the table alone."""
ERASURE = "erasure."
OTHERS = {
    "deploy": "Dockerfile, compose, Helm chart, Kafka's rights, alerts and dashboards",
    "docs": "The pages, and adr/: one page a decision",
    "examples": "The bundled help desk: tickets, procedures, project.yaml",
    "scripts": "What draws, measures and builds pages",
    "testing": "Builders and doubles for the tests of all packages",
    "tests": "Tests across packages; a package's own tests are in its folder",
}
"""The folders without a package."""
State = tuple[TurnStage, TurnEnd | None]


def packages() -> Iterator[str]:
    """Draw the layers of the import rules, and which package imports which."""
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (rule["layers"] for rule in rules if rule["id"] == "layers")
    rows = [sorted(_short(name) for name in re.findall(r"\w+", layer)) for layer in layers]
    lines = ["  ".join(row) for row in rows]
    width = max(map(len, lines)) + 2
    yield "```"
    yield f"┌{'─' * width}┐"
    for at, line in enumerate(lines):
        yield f"│ {line.ljust(width - 1)}│"
        yield f"├{'─' * width}┤" if at + 1 < len(lines) else f"└{'─' * width}┘"
    yield "```"
    yield ""
    shared = [name for row in rows[1:] for name in row]
    yield from _table(["", *shared])
    for name in (name for row in rows for name in row):
        used = _imported(name)
        if used:
            yield from _table([f"**{name}**", *("●" if one in used else "" for one in shared)], head=False)


def folders() -> Iterator[str]:
    """Draw the repository: each folder with a package and its description, and the other folders."""
    groups: dict[str, dict[str, str]] = {"shared packages": {}, "services/": {}, "beside them": OTHERS}
    for file in (*ROOT.glob("*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")):
        group = "services/" if file.parents[1].name == "services" else "shared packages"
        groups[group][file.parent.name] = tomllib.loads(file.read_text("utf-8"))["project"]["description"]
    yield "```text"
    for group, found in groups.items():
        yield group
        for at, name in enumerate(sorted(found), 1):
            yield f"{'└' if at == len(found) else '├'}─ {name.ljust(14)} {found[name]}"
    yield "```"


def _imported(package: str) -> set[str]:
    # Not "**": it would look through the virtual environment.
    (folder,) = (*ROOT.glob(f"*/src/tunewheel_{package}"), *ROOT.glob(f"services/*/src/tunewheel_{package}"))
    source = "\n".join(path.read_text("utf-8") for path in folder.rglob("*.py"))
    return {*re.findall(r"^\s*(?:from|import) tunewheel_(\w+)", source, re.MULTILINE)} - {package}


def _short(package: str) -> str:
    return package.removeprefix("tunewheel_")


def topics() -> Iterator[str]:
    """Draw which events of one service give another service work, and which states it publishes that others
    follow; list all topics of each service."""
    edges: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    services = dict.fromkeys(name for spec in TOPICS for name in (*spec.producers, *spec.consumers))
    for spec in TOPICS:
        for producer in spec.producers:
            for consumer in spec.consumers:
                replays, state = consumer in spec.replayed_by, spec.cleanup == "compact"
                if (
                    producer in (*PEOPLE, consumer)
                    or spec.name.startswith(ERASURE)
                    or (replays and not state)
                ):
                    continue
                edges[producer, "-.->" if replays else "-->", consumer].append(spec.name)
    yield "```mermaid"
    yield "flowchart LR"
    for (producer, arrow, consumer), names in edges.items():
        yield f'    {producer} {arrow}|"{"<br>".join(names)}"| {consumer}'
    yield "```"
    yield ""
    yield from _table(["", "works on", "replays", "writes"])
    for service in services:
        worked = [s.name for s in TOPICS if service in s.handled_by]
        replayed = [s.name for s in TOPICS if service in s.replayed_by]
        written = [s.name for s in TOPICS if service in s.producers]
        if service == "console":
            replayed = [f"all but {', '.join(f'`{s.name}`' for s in NOT_SHOWN)}"]
        yield from _table([f"**{service}**", _names(worked), _names(replayed), _names(written)], head=False)


def _names(topics: Collection[str]) -> str:
    return ", ".join(name if "`" in name else f"`{name}`" for name in topics)


def turns() -> Iterator[str]:
    """Draw how turns move in random logs: from stage to stage, and to which ends."""
    moves = _moves()
    onward = [(a, b) for a in TurnStage for b in TurnStage if ((a, None), (b, None)) in moves]
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield "    direction LR"
    yield f"    [*] --> {next(iter(TurnStage))}"
    for a, b in onward:
        yield f"    {a} --> {b}"
    yield "```"
    yield ""
    yield from _table(["stage", "ends in it", "ends that the turn may leave again"])
    for stage in TurnStage:
        ends = [end for end in TurnEnd if any(to == (stage, end) for _, to in moves)]
        left = [end for end in ends if any(state == (stage, end) and to[1] is None for state, to in moves)]
        yield from _table([f"`{stage}`", ", ".join(ends), ", ".join(left)], head=False)


def _moves() -> set[tuple[State, State]]:
    """Return which state of a turn followed which, event by event, in ``LOGS`` random logs."""
    moves: set[tuple[State, State]] = set()
    for seed in range(LOGS):
        wheel, before = Wheel(), dict[str, State]()
        for event in random_log(seed).events:
            wheel.apply(event)
            now: dict[str, State] = {turn.turn_id: (turn.stage, turn.end) for turn in wheel.turns}
            moves |= {
                (before[name], state) for name, state in now.items() if before.get(name, state) != state
            }
            before = now
    return moves


def steps() -> Iterator[str]:
    """List the steps of a build, in their order."""
    yield from _table(["step", "kinds of rows"])
    for step in STEPS:
        yield from _table([f"`{step.name}`", ", ".join(step.kinds)], head=False)


def _table(cells: Sequence[str], *, head: bool = True) -> Iterator[str]:
    yield f"| {' | '.join(cells)} |".replace("  ", " ")
    if head:
        yield "|" + "---|" * len(cells)


PICTURES: dict[str, Callable[[], Iterator[str]]] = {
    "packages": packages, "folders": folders, "topics": topics, "turns": turns, "steps": steps,
}  # fmt: skip


def drawn(page: str) -> str:
    """Return the page with every picture drawn anew, each between its two marks.

    Raises:
        ValueError: the page lacks the marks of a picture.
    """
    for name, draw in PICTURES.items():
        begin, end = f"<!-- drawn: {name} -->\n", "<!-- end -->"
        before, mark, after = page.partition(begin)
        if not mark or end not in after:
            raise ValueError(f"{PAGE.name} lacks the marks of the picture {name}")
        page = before + mark + "\n".join(draw()) + "\n" + end + after.partition(end)[2]
    return page


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 1 if ``--check`` finds a stale picture, else 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a picture is stale")
    check = parser.parse_args(arguments).check
    page = PAGE.read_text("utf-8")
    new = drawn(page)
    if not check:
        PAGE.write_text(new, "utf-8", newline="\n")
    elif new != page:
        print("docs/architecture.md is stale: run `make generate` and commit the result")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
