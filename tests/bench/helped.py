"""How often a turn is said to have helped, or not to have helped, by what its mend truly did.

Answers to an alarm's request are split as curate splits them, champion and candidate answer the held-out
prompts, and the monitor judges. Nobody rates. A tenth of the prompts are further ones of the same customer. A
prompt is hard or easy for both models alike (``ALIKE``). The alarm is about a fifth of the traffic. Traffic
tells of form and novelty only: the answers' form is as it was, and the dataset covers the questions now.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

import numpy as np
from report import write_report
from tunewheel_contracts.formats.scorecard import RequestedRows
from tunewheel_curate.holdout.stratification import Unit, choose_of_request
from tunewheel_monitor.turns.conclusion import CANARY, changes, judged, paired
from tunewheel_monitor.turns.counting import Counts
from tunewheel_verdicts.proportions import clopper_pearson

DRAWS = 2_000
LABELS = (20, 40, 60, 100, 200)
ALIKE = 0.3
"""The share of prompts that both models find equally hard; on the others their errors are independent."""
MENDS = {
    "80 to 20 %": (0.8, 0.2),
    "80 to 40 %": (0.8, 0.4),
    "80 to 60 %": (0.8, 0.6),
    "80 to 70 %": (0.8, 0.7),
    "null at 80 %": (0.8, 0.8),
    "null at 50 %": (0.5, 0.5),
    "null at 20 %": (0.2, 0.2),
    "worse, 20 to 40 %": (0.2, 0.4),
}
"""By name: the share of wrong answers to the alarm's questions before and after."""
INVALID = 0.02


def main() -> None:
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS
    held = {labels: held_out(labels) for labels in LABELS}
    found: dict[str, Any] = {"held-out prompts by labels": held}
    for name, (before, after) in MENDS.items():
        found[name] = {labels: outcomes(before, after, held[labels], draws) for labels in LABELS}
        print(name, found[name], file=sys.stderr, flush=True)
    write_report("helped", packages=("numpy", "scipy"), contenders=found, ratios={}, draws=draws)


def held_out(labels: int) -> int:
    """Return how many customers' prompts are held out of ``labels`` answers over eight new labels."""
    asked = [(f"new {n % 8}", n - n % 10 if n % 10 == 1 else n) for n in range(labels)]
    units = [
        Unit(f"customer-{one}", Counter(names))
        for one in {customer for _, customer in asked}
        if (names := [label for label, customer in asked if customer == one])
    ]
    return len(choose_of_request(units, fraction=0.1))


def outcomes(before: float, after: float, prompts: int, draws: int) -> dict[str, list[float]]:
    """Return by outcome its share of the draws, with the ends of the 95 % interval."""
    rng = np.random.default_rng(7)
    told = Counter(judge(rng, before, after, prompts) for _ in range(draws))
    return {
        outcome: [
            round(told[outcome] / draws, 4),
            *(round(end, 4) for end in clopper_pearson(told[outcome], draws, alpha=0.025)),
        ]
        for outcome in ("helped", "did not help", "undecided")
    }


def judge(rng: np.random.Generator, before: float, after: float, prompts: int) -> str:
    mine, theirs = rng.random(prompts), rng.random(prompts)
    theirs = np.where(rng.random(prompts) < ALIKE, mine, theirs)
    candidate, champion = mine >= after, theirs >= before
    rows = RequestedRows(
        request_id="labels-1", metric="label_accuracy", prompts=prompts,
        both_right=int((candidate & champion).sum()), only_champion=int((champion & ~candidate).sum()),
        only_candidate=int((candidate & ~champion).sum()),
    )  # fmt: skip

    def traffic(questions: int, novel: float = 0.0) -> Counts:
        invalid = rng.binomial(questions, INVALID)
        return Counts(
            questions=questions, measured=questions, novel=rng.binomial(questions, novel), judged=questions,
            invalid=invalid,
        )  # fmt: skip

    then, now = traffic(500, 0.2), traffic(500, 0.05)
    counted = (rows.prompts, rows.both_right, rows.only_champion, rows.only_candidate)
    found = paired(counted) | changes(traffic(350), traffic(150), CANARY) | changes(then, now)
    return judged(found, then)[0]


if __name__ == "__main__":
    main()
