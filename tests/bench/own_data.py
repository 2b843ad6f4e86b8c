"""How long a newcomer's own data takes to the first tuned answer: the six commands of the guide.

The data is 30 questions of each of ten intents of banking77. The first command, ``make install``, is left
out: the bench runs in the environment that it made.
"""

from __future__ import annotations

import csv
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import write_report

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data" / "banking77" / "train.csv"
INTENTS = (
    "age_limit", "cancel_transfer", "card_arrival", "card_linking", "contactless_not_working",
    "exchange_rate", "lost_or_stolen_card", "pin_blocked", "terminate_account", "top_up_limits",
)  # fmt: skip
EACH, ASKED_EACH = 30, 2


def main() -> None:
    guide = (ROOT / "docs" / "bring-your-own-project.md").read_text("utf-8")
    section = guide.partition("## The same by hand, in six commands")[2]
    spec, commands = re.findall(r"```(?:yaml)?\n(.*?)```", section, re.DOTALL)[:2]
    rows, asked = questions()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bank.yaml").write_text(spec, "utf-8")
        with (Path(folder) / "bank.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "category"), *rows])
        took: dict[str, float] = {}
        began = time.monotonic()
        try:
            for command in commands.strip().splitlines()[1:]:
                took[shlex.split(command)[1]], told = run(command, folder)
                if "watch" in command and "model.promoted" not in told:
                    sys.exit(f"no tuned model serves: {told}")
            total = time.monotonic() - began
            answers = [
                (run(f"tunewheel ask {shlex.quote(text)} --project bank", folder)[1], label)
                for text, label in asked
            ]
        finally:
            run("tunewheel down", folder)
    right = sum(f'"{label}"' in answer for answer, label in answers)
    contenders = {"commands, seconds": took, "first tuned answer, seconds": {"all": round(total, 1)},
                  "right answers": {"of": len(asked), "right": right}}  # fmt: skip
    write_report(
        "own_data", packages=("torch", "transformers"), contenders=contenders, ratios={}, rows=len(rows)
    )


def questions() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the questions to publish and others to ask, each with its intent."""
    with DATA.open(encoding="utf-8") as file:
        found = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    rng = random.Random(7)
    taken, left = [], []
    for intent in INTENTS:
        of_it = [row for row in found if row[1] == intent]
        rng.shuffle(of_it)
        taken += of_it[:EACH]
        left += of_it[EACH : EACH + ASKED_EACH]
    return taken, left


def run(command: str, folder: str) -> tuple[float, str]:
    """Run ``command`` in ``folder``; return its seconds and what it printed."""
    began = time.monotonic()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        shell=True,
        cwd=folder,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    print(f"{time.monotonic() - began:6.1f} s  {command}", file=sys.stderr, flush=True)
    return round(time.monotonic() - began, 1), done.stdout


if __name__ == "__main__":
    main()
