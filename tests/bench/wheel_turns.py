"""Whether the wheel turns: simulated wheels of twenty turns, by the real verdict and rules of trials.

Each turn brings a candidate that is ``delta`` better than the champion, as a share of questions. The gate
judges it by held-out rows of forty customers of unequal size, of which curate retires some each turn. A
candidate that met or is undecided goes to a trial of 2,000 copied questions. There people compare forty of
the pairs of answers that differ, and a judge, which agrees with people on .8 of the pairs, compares all that
were drawn. Four answers of five are the same. The registry's budget of loss narrows the margin of gate and
trial.

    make bench NAME=wheel_turns ARGS="--wheels 500 --worse 2000"
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from report import write_report
from rollout import played
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.look import Look
from tunewheel_contracts.formats.scorecard import Gain, Role
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_curate.builds.pinned_inputs import choose_retired
from tunewheel_monitor.rollout import comparisons
from tunewheel_monitor.rollout.verdicts import EACH
from tunewheel_registry.budget import Account
from tunewheel_registry.decision import gain_of
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Scores
from tunewheel_verdicts.verdict import judge, outcome_of
from verdict import zipf

Floats = NDArray[np.float64]
TURNS = 20
CUSTOMERS = 40
ACCURACY = 0.75
DISCORDANT = 0.2
"""The share of questions that one of the two models answers right and the other wrong."""
BOTH_WRONG = 0.02
"""The share of questions that both answer wrong, in different ways."""
ALIKE = 0.1
"""The share of a customer's rows whose luck is the customer's."""
COPIES = 2_000
LABELS = 40
AGREES = 0.8
MARGIN = 0.1
SCHEMA = {"type": "object", "properties": {"subject": {"type": "string"}}}
TASK = TaskSpec(system_prompt="Name the subject.", label_field="subject", output_schema=SCHEMA)
CRITERION = Criterion(metric="label_accuracy", over_champion=-MARGIN)
SPEC = ProjectSpec(project="desk", base_model="base", task=TASK, criteria=(CRITERION,))


@dataclass(frozen=True)
class Signal:
    """What production tells of answers."""

    labels: int = LABELS
    agrees: float | None = AGREES
    """How often the judge agrees with people; None: there is no judge."""


@dataclass
class Holdout:
    """The champion's hits by row. Each turn is a verdict and a build, which replaces the rows that curate
    retires."""

    rng: np.random.Generator
    rows: int
    customers: NDArray[np.int64] = field(init=False)
    champion: Floats = field(init=False)
    examples: list[ChatExample] = field(init=False)
    looks: list[Look] = field(default_factory=list[Look])

    def __post_init__(self) -> None:
        self.customers = np.repeat(np.arange(CUSTOMERS), zipf(self.rows, CUSTOMERS))
        self.champion = (self.rng.random(self.rows) < ACCURACY).astype(np.float64)
        self.examples = [self.example(f"first-{row}") for row in range(self.rows)]

    @staticmethod
    def example(name: str) -> ChatExample:
        return ChatExample.model_construct(example_id=name, record_ids=(), group="")

    def turn(self) -> None:
        names, number = [one.example_id for one in self.examples], len(self.looks)
        more = {"project": SPEC.project, "looks": 1}
        self.looks.append(Look(scorecard_id=f"verdict-{number}", rows=tuple(names), **more))
        retired = choose_retired(self.looks, self.examples, SPEC)
        if retired.rows:
            told = {"rows": retired.rows, "counted": retired.counted}
            self.looks.append(Look(scorecard_id=f"build-{number}", of=1, **told, **more))
        for row in {names.index(name) for name in retired.rows}:
            self.examples[row] = self.example(f"{number}-{row}")
            self.champion[row] = self.rng.random() < ACCURACY

    def candidate(self, delta: float) -> Floats:
        """Return the hits of a candidate that is ``delta`` better than the champion."""
        gains, losses = (DISCORDANT + delta) / 2 / (1 - ACCURACY), (DISCORDANT - delta) / 2 / ACCURACY
        luck = np.where(
            self.rng.random(self.rows) < ALIKE,
            self.rng.random(CUSTOMERS)[self.customers],
            self.rng.random(self.rows),
        )
        return np.where(self.champion > 0, luck >= losses, luck < gains).astype(np.float64)

    def outcome(self, candidate: Floats, spent: float) -> str:
        metric = Measured(
            name="label_accuracy",
            test="proportion",
            lower_is_better=False,
            lowest=0.0,
            highest=1.0,
            on="holdout",
            scores={Role.CANDIDATE: Scores(candidate), Role.CHAMPION: Scores(self.champion)},
            clusters=self.customers,
        )
        checks = judge([CRITERION], {"label_accuracy": metric}, TASK, resolution=0.05, seed=1, spent=spent)
        return outcome_of(checks)


@dataclass(frozen=True)
class Trial:
    """The end of a trial, and its figure of answers."""

    end: str
    state: comparisons.Comparisons


def trial(rng: np.random.Generator, delta: float, to_show: float | None, signal: Signal) -> Trial:
    """Run a trial of a candidate that is ``delta`` better. ``to_show``: None after a verdict of met."""
    state = comparisons.new_comparisons()
    differ = int(rng.binomial(COPIES, DISCORDANT + BOTH_WRONG))
    shares = np.array([DISCORDANT - delta, 2 * BOTH_WRONG, DISCORDANT + delta]) / 2
    losses = rng.choice([1.0, 0.0, -1.0], size=differ, p=shares / shares.sum())
    said = {"answer": "a", "model_id": "champion", "place": [0, 0]}
    for number in range(differ):
        comparisons.see(state, f"q{number}", {**said, "answer": "b"}, said)
    state["differ"][1] += COPIES - differ

    def says(loss: float) -> float:
        other = [one for one in (1.0, 0.0, -1.0) if one != loss]
        return loss if rng.random() < (signal.agrees or 0.0) else float(rng.choice(other))

    told = {name: float(losses[int(name[1:])]) for name in comparisons.drawn(state)}
    judge = says if signal.labels and signal.agrees is not None else None
    end, _ = played(state, told, judge, signal.labels, to_show, margin=MARGIN)
    return Trial(end or "open", state)


@dataclass
class Wheel:
    """A project's life: the quality of its champions, and the ends of its candidates' trials."""

    ends: Counter[str] = field(default_factory=Counter[str])
    quality: float = 0.0
    """The champion's share of right answers, relative to the first champion's."""
    best: float = 0.0
    largest_loss: float = 0.0


def on_rows(differences: Floats) -> Gain:
    """Return the gain on the held-out rows, as an evaluation tells it of a promotion without comparisons."""
    error = float(differences.std(ddof=1)) / len(differences) ** 0.5
    return Gain(difference=float(differences.mean()), error=error, of="holdout")


def run(rng: np.random.Generator, rows: int, deltas: Floats, signal: Signal) -> Wheel:
    wheel, holdout, account = Wheel(), Holdout(rng, rows), Account()
    for delta in deltas:
        candidate = holdout.candidate(float(delta))
        outcome = holdout.outcome(candidate, account.spent)
        if outcome == "missed":
            wheel.ends["refused"] += 1
        else:
            to_show = None if outcome == "met" else min(0.0, account.spent - MARGIN)
            found = trial(rng, float(delta), to_show, signal)
            wheel.ends[found.end] += 1
            if found.end == "passed":
                bound = comparisons.bound(found.state, margin=MARGIN, alpha=EACH)
                account = account.after(
                    gain_of((bound,))
                    if sum(comparisons.compared(found.state).values())
                    else on_rows(candidate - holdout.champion)
                )
                wheel.quality += float(delta)
                wheel.best = max(wheel.best, wheel.quality)
                wheel.largest_loss = max(wheel.largest_loss, wheel.best - wheel.quality)
                holdout.champion = candidate
        holdout.turn()
    return wheel


WORSE = "-.10"
SETTINGS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "equal": lambda rng: np.zeros(TURNS),
    "+.10": lambda rng: np.full(TURNS, 0.1),
    "-.03 each turn": lambda rng: np.full(TURNS, -0.03),
    "drawn from N(0, .05)": lambda rng: rng.normal(0.0, 0.05, TURNS).clip(-0.19, 0.19),
    WORSE: lambda rng: np.full(TURNS, -0.1),
}


def told(wheels: list[Wheel]) -> dict[str, float]:
    ends = sum((wheel.ends for wheel in wheels), Counter[str]())
    turns = sum(ends.values())
    return {
        **{end: round(count / turns, 4) for end, count in sorted(ends.items())},
        "wheels": len(wheels),
        "any_promoted": round(sum(wheel.ends["passed"] > 0 for wheel in wheels) / len(wheels), 4),
        "loss_within_margin": round(
            sum(wheel.largest_loss <= MARGIN + 1e-9 for wheel in wheels) / len(wheels), 4
        ),
        "final_quality": round(sum(wheel.quality for wheel in wheels) / len(wheels), 4),
    }


SIGNALS = {"labels and judge": Signal(), "labels": Signal(agrees=None), "neither": Signal(labels=0)}


def wheels(name: str, rows: int, setting: str, count: int) -> dict[str, float]:
    rng = np.random.default_rng([29, rows, count])
    return told([run(rng, rows, SETTINGS[setting](rng), SIGNALS[name]) for _ in range(count)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wheels", type=int, default=500)
    parser.add_argument("--worse", type=int, default=2_000)
    asked = parser.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with ProcessPoolExecutor() as pool:
        running = {
            f"{setting}, {rows} rows, {name}": pool.submit(
                wheels, name, rows, setting, asked.worse if setting == WORSE else asked.wheels
            )
            for name in SIGNALS
            for rows in (75, 100)
            for setting in SETTINGS
        }
        for key, one in running.items():
            found[key] = one.result()
            print(key, found[key], file=sys.stderr, flush=True)
    write_report("wheel_turns", packages=("numpy", "scipy"), contenders=found, ratios={})


if __name__ == "__main__":
    main()
