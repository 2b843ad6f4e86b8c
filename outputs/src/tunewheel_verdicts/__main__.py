"""Simulates verdicts in a process of its own, which can be ended: reads ``Asked`` as JSON from standard input
and writes ``Power`` as JSON to standard output."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from pydantic import TypeAdapter
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_verdicts.drawing import Expected
from tunewheel_verdicts.power import power_of


@dataclass(frozen=True, slots=True)
class Asked:
    """The arguments of ``power_of``."""

    spec: ProjectSpec
    sizes: tuple[int, ...]
    expected: dict[str, Expected]


ASKED = TypeAdapter(Asked)


def main() -> None:
    asked = ASKED.validate_json(sys.stdin.buffer.read())
    sys.stdout.write(power_of(asked.spec, asked.sizes, asked.expected).model_dump_json())


if __name__ == "__main__":
    main()
