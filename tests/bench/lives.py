"""Random lives of ninety days: how many break a promise about open alarms, and what happened in them.

``tests/lives`` does the same with a few. Nothing is timed against a limit.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter

from report import write_report
from tunewheel_testing.lives import Life, live


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lives", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    chosen = parser.parse_args()
    broken: dict[int, str] = {}
    happened: Counter[str] = Counter()
    began = time.process_time()

    def count(life: Life) -> None:
        happened.update(event.data.type for event in life.story.events)
        happened.update(f"curate: {event.data.step}" for event in life.decisions)
        happened["alarms that reopen another"] += sum(
            event.data.type == "alarm.opened" and event.data.reopens is not None
            for event in life.story.events
        )
        happened["turns by drift"] += sum(life.tries.values())

    for seed in range(chosen.first, chosen.first + chosen.lives):
        if complaints := live(seed, seen=count):
            broken[seed] = complaints[0]
            print(seed, complaints[0], flush=True)
    lives = {"broken": len(broken), "first": dict([*broken.items()][:20]), "happened": dict(happened)}
    write_report(
        "lives", packages=(), contenders={"lives": lives | {"seconds": time.process_time() - began}},
        ratios={"broken": len(broken) / chosen.lives}, lives=chosen.lives, first=chosen.first,
    )  # fmt: skip


if __name__ == "__main__":
    main()
