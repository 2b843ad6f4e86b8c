"""What a review of sixty prompts says of an equal model and of a better one, by the real draw and preference.
The reviewer is always right.

Two models answer held-out prompts. Each is right on .75 of them; a better candidate is right on some more.
``same`` of their answers give reasons in the same words. ``decided``: the interval of the preference lies on
one side of .5.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
from report import write_report
from tunewheel_contracts.formats.generations import Generation
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.reviewing import drawing
from tunewheel_eval.reviewing.drawing import draw
from tunewheel_eval.reviewing.preference import preferred

DRAWS, CLICKS = 1_000, 60
TASK = TaskSpec(system_prompt="s", label_field="kind", output_schema={"type": "object", "required": ["kind"]})
SETTINGS = {
    f"{name}, {same:.0%} in the same words": (200, more, same)
    for name, more in (("equal", 0.0), ("+.05", 0.2), ("+.10", 0.4))
    for same in (0.0, 0.5, 0.9)
}
"""By name: rows; how often the candidate is right where it would be wrong; share of equal texts."""


def main() -> None:
    drawing.rouge_l = cache(drawing.rouge_l)  # few texts differ
    draws = int(sys.argv[1]) if len(sys.argv) > 1 else DRAWS
    found: dict[str, dict[str, Any]] = {}
    for name, (rows, more, same) in SETTINGS.items():
        told = np.array([reviewed(seed, rows, more, same) for seed in range(draws)])
        truth, preference, low, high, clicks = told.T
        found[name] = {
            "true preference": round(float(truth.mean()), 3),
            "preference": round(float(preference.mean()), 3),
            "decided": round(float(np.mean((low > 0.5) | (high < 0.5))), 3),
            "covered": round(float(np.mean((low <= truth) & (truth <= high))), 3),
            "clicks": round(float(clicks.mean()), 1),
        }
        print(name, found[name], file=sys.stderr, flush=True)
    write_report("review", packages=("numpy", "scipy"), contenders=found, ratios={}, draws=draws)


def reviewed(seed: int, rows: int, more: float, same: float) -> tuple[float, ...]:
    """Return the true preference over all rows, what the review makes of it with its interval, and how many
    prompts were compared."""
    rng = np.random.default_rng(seed)
    lines: list[Generation] = []
    truth: dict[str, float] = {}
    for n in range(rows):
        shared = rng.random() < 0.6
        own, other = (bool(shared or rng.random() < 0.375) for _ in range(2))
        own = own or bool(rng.random() < more)
        kind, words = "abc"[int(rng.integers(3))], "so" if rng.random() < same else "so too"
        answers = {
            role: {"output": json.dumps({"kind": kind if right else "none", "why": why}), "complete": True}
            for role, right, why in (("candidate", own, words), ("champion", other, "so"))
        }
        expected = json.dumps({"kind": kind, "why": "so"})
        prompt = [{"role": "user", "content": f"question {n}"}]
        line = {"example_id": f"ex-{n}", "answers": answers, "prompt": prompt, "expected": expected}
        lines.append(Generation.model_validate(line))
        truth[f"ex-{n}"] = 0.5 + (own - other) / 2
    drawn = draw(lines, TASK, size=CLICKS, seed=str(seed))
    strata: dict[str, list[float]] = defaultdict(list)
    for item in drawn.items:
        strata[item.stratum].append(truth[item.example_id])
    told = preferred([(drawn.sizes[name], scores) for name, scores in strata.items()], equal=drawn.equal)
    return float(np.mean(list(truth.values()))), *told, float(len(drawn.items))


if __name__ == "__main__":
    main()
