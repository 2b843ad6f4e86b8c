"""Whether metrics see what is wrong: groundedness on planted contradictions against true paraphrases.

The check was developed on half of the documents; the other half is reported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from contradictions import Claim, claims
from report import write_report
from tunewheel_outputs.claims import supported
from tunewheel_outputs.grounding import figures_in, grounding

EACH = 60
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
    for name, figures in found.items():
        print(name, figures, file=sys.stderr, flush=True)
    write_report("judge", packages=("numpy",), contenders=found, ratios={}, seed=seed)


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
