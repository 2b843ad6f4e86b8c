"""In how many random legal logs each fold of turns and models contradicts what happened.

``tests/contract/test_folds.py`` does the same with 500 logs. Nothing is timed against a limit.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict

from report import write_report
from tunewheel_testing.folds import FOLDS, disagreements
from tunewheel_testing.random_logs import random_log


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--logs", type=int, default=10_000)
    chosen = parser.parse_args()
    wrong: defaultdict[str, list[int]] = defaultdict(list)
    seconds = dict.fromkeys(FOLDS, 0.0)
    events = 0
    for seed in range(chosen.logs):
        log = random_log(seed)
        events += len(log.events)
        for fold in FOLDS:
            began = time.process_time()
            if disagreements(log, fold):
                wrong[fold].append(seed)
            seconds[fold] += time.process_time() - began
    write_report(
        "folds", packages=(), contenders={
            fold: {"wrong": len(wrong[fold]), "first_seeds": wrong[fold][:10], "seconds": seconds[fold]}
            for fold in FOLDS
        },
        ratios={fold: len(wrong[fold]) / chosen.logs for fold in FOLDS}, logs=chosen.logs, events=events,
    )  # fmt: skip


if __name__ == "__main__":
    main()
