"""Whether metrics see what is wrong, and whether the judge's interval holds.

Groundedness: planted contradictions against true paraphrases. The check was developed on half of the
documents; the other half is reported. The judge is simulated: it says what people say with a probability, and
otherwise something else, mostly in favour of the candidate where it is ``flattering``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from contradictions import Claim, claims
from report import write_report
from tunewheel_eval.judges.error import Reviewed, corrected
from tunewheel_outputs.claims import supported
from tunewheel_outputs.grounding import figures_in, grounding

EACH = 60
SIMULATED = 5_000
AGREEMENTS = (0.7, 0.8, 0.9, 0.95)
ERRORS = {"fair": 0.5, "flattering": 0.9}
VALUES, SHARES = (0.0, 0.5, 1.0), (0.32, 0.2, 0.48)
DIFFER = 0.6
"""The share of prompts with two different answers."""
TRUTH = 0.5 + DIFFER * (float(np.dot(VALUES, SHARES)) - 0.5)
HALVES = {"developed on": 0, "reported": 1}


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    found: dict[str, dict[str, Any]] = {}
    for name, half in HALVES.items():
        planted = claims(half=half, each=EACH, seed=seed)
        found[f"groundedness, {name}"] = told_apart(
            planted, [supported(one.said, [one.passage]) for one in planted]
        )
        found[f"words and numbers alone, {name}"] = told_apart(planted, [by_words(one) for one in planted])
    simulated = int(sys.argv[2]) if len(sys.argv) > 2 else SIMULATED
    found |= {
        f"judge, {rows} rows, {reviewed} reviewed, {error}": held(rows, reviewed, odds, simulated, seed)
        for rows in (60, 200)
        for reviewed in (20, 60)
        for error, odds in ERRORS.items()
    }
    for name, figures in found.items():
        print(name, figures, file=sys.stderr, flush=True)
    write_report("judge", packages=("numpy",), contenders=found, ratios={}, seed=seed, simulated=simulated)


def held(rows: int, reviewed: int, odds: float, rounds: int, seed: int) -> dict[str, Any]:
    """Return by agreement: the share of 95 % intervals that hold what people would say of all prompts, and
    their width against that of the interval by people's answers alone."""
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for agreement in AGREEMENTS:
        holds, widths, people_alone = 0, 0.0, 0.0
        for _ in range(rounds):
            _, values = compared(rows, agreement, odds, rng)
            differs = rng.random(rows) < DIFFER
            people, judge = compared(reviewed, agreement, odds, rng)
            pairs = [Reviewed(person, said) for person, said in zip(people, judge, strict=True)]
            interval = corrected(np.where(differs, values, 0.5), differs, np.arange(rows), pairs, alpha=0.025)
            holds += interval.low <= TRUTH <= interval.high
            widths += interval.high - interval.low
            people_alone += 2 * 1.96 * DIFFER * people.std(ddof=1) / reviewed**0.5
        found[f"agreement {agreement}"] = [round(holds / rounds, 4), round(float(widths / people_alone), 2)]
    return found


def compared(count: int, agreement: float, odds: float, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return people's values of pairs that differ, and the judge's. ``odds``: how often an error of the judge
    favours the candidate."""
    people = rng.choice(VALUES, size=count, p=SHARES)
    wrong = np.where(rng.random(count) < odds, 1.0, 0.0)
    wrong = np.where(wrong == people, 0.5, wrong)
    return people, np.where(rng.random(count) < agreement, people, wrong)


def by_words(claim: Claim) -> float:
    """Return the share of a claim's words that stand in its passage; 0: it has a number of its own."""
    return 0.0 if figures_in(claim.said) - figures_in(claim.passage) else grounding(claim.said, claim.passage)


def told_apart(planted: Sequence[Claim], scores: Sequence[float]) -> dict[str, float]:
    """Return the area under the curve: the share of pairs in which the paraphrase scores above the
    contradiction, a tie counting half. Of all, and of each kind of contradiction."""
    kinds = dict.fromkeys(one.kind for one in planted)

    def area(kind: str | None) -> float:
        rows = [(one, score) for one, score in zip(planted, scores, strict=True) if kind in (None, one.kind)]
        true = np.array([score for one, score in rows if one.is_true])[:, None]
        false = np.array([score for one, score in rows if not one.is_true])[None]
        return round(float(((true > false) + 0.5 * (true == false)).mean()), 3)

    return {"all": area(None), **{kind: area(kind) for kind in kinds}}


if __name__ == "__main__":
    main()
