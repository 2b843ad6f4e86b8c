"""Answers and ratings of simulated quality, since no model runs here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

import numpy as np
from alarms import DRIFT, alarms_in, say, told
from questions import START, WINDOW, Rng
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_monitor.detectors import DETECTORS, WEIGHTS, Opening, State
from tunewheel_monitor.detectors.feedback import Feedback

SHIFTS = (0.0, 0.05, 0.1, 0.2, 0.5)
OTHERS = tuple(detector for detector in DETECTORS if detector.family != "input")


def answered(rng: Rng, items: Iterable[InferenceScored], bad: float = 0.0) -> Iterator[InferenceScored]:
    """Give questions an answer of a calm day, of which a share ``bad`` is bad in every way; one in ten is
    rated."""
    for number, item in enumerate(items):
        off = rng.random() < bad
        chance = rng.random(8)
        tokens = int(rng.lognormal(3.5 + off, 0.6)) + 1
        failed = chance[0] < 0.005 + bad
        more = {
            "completion_id": f"c-{number}", "completion_tokens": tokens, "truncated": tokens > 150,
            "outcome": "failed" if failed else "answered", "fault": "engine" if failed else None,
            "latency_seconds": float(rng.lognormal(0, 0.4)) * (3 if off else 1),
            "format_valid": not (off or chance[1] < 0.05), "refusal": bool(off or chance[2] < 0.05),
            "repetition": 0.6 if off or chance[3] < 0.03 else 0.02, "invented": int(off or chance[4] < 0.08),
            "label": "other" if off else item.label,
        }  # fmt: skip
        yield item.model_copy(update=more)
        if chance[5] < 0.1:
            yield item.model_copy(
                update={
                    "of": "rating", "rating": "down" if off or chance[6] < 0.1 else "up", "client": "app",
                    "user": f"u-{rng.integers(10**9)}", "at": START + timedelta(minutes=number),
                    "corrected": bool(off or chance[7] < 0.05), "agrees": not (off or chance[7] < 0.1),
                }
            )  # fmt: skip


def plain(rng: Rng, count: int) -> list[InferenceScored]:
    """Return questions that bear a label alone, by Zipf's law."""
    shares = 1 / np.arange(1, 21)
    labels = rng.choice(20, count, p=shares / shares.sum())
    made = [
        InferenceScored.model_construct(
            project="desk", completion_id="c", scored="c", model_id="m", role=RouteRole.PRODUCTION, at=START,
            label=f"label-{label}",
        )
        for label in range(20)
    ]  # fmt: skip
    return [made[label] for label in labels]


def answers_power(pool: Any, draws: int) -> dict[str, Any]:
    """Return by share of bad answers what the detectors of answers and ratings see in 2,000 answers and 200
    ratings, after 10,000 calm answers of the version before."""
    rng = np.random.default_rng(18)
    calm = {detector.name: detector.open(Opening(drift=DRIFT, weights=WEIGHTS)) for detector in OTHERS}
    alarms_in(OTHERS, calm, answered(rng, plain(rng, 10_000)))
    found: dict[str, Any] = {}
    for shift in SHIFTS:
        first = pool.starmap(_answers_power, [(calm, shift, draw) for draw in range(draws)], chunksize=1)
        found[f"{shift:.0%}"] = told(first, OTHERS)
        say(f"answers at {shift:.0%}", found[f"{shift:.0%}"])
    return found


def _answers_power(calm: dict[str, State], shift: float, draw: int) -> dict[str, int]:
    rng = np.random.default_rng((18, round(100 * shift), draw))
    states = {
        d.name: d.open(Opening(drift=DRIFT, weights=WEIGHTS, holdout=(10, 200), predecessor=calm[d.name]))
        for d in OTHERS
    }
    return alarms_in(OTHERS, states, answered(rng, plain(rng, 2_000), shift))


def thumbs(pool: Any, runs: int) -> dict[str, Any]:
    """Return how often 30 % thumbs down are flagged within 200 ratings, and 10 % within 1,000, from a
    baseline of 1,000 ratings drawn anew each time. A look follows each hundred ratings."""
    found: dict[str, Any] = {}
    for rate, ratings, count in ((0.3, 200, max(1, runs // 5)), (0.1, 1_000, runs)):
        share = -(-count // 100)
        tasks = [(rate, ratings, min(share, count - first), first) for first in range(0, count, share)]
        ends = [end for some in pool.starmap(_thumbs, tasks, chunksize=1) for end in some]
        found[f"{rate:.0%} down, {ratings} ratings"] = {
            "runs": count,
            "flagged": round(len(ends) / count, 4),
            "median ratings": int(np.median(ends)) if ends else None,
        }
    say("thumbs", found)
    return found


def _thumbs(rate: float, ratings: int, count: int, first: int) -> list[int]:
    """Return after how many ratings those of ``count`` runs were flagged that were."""
    rng, detector = np.random.default_rng((20, ratings, first)), Feedback()
    base = InferenceScored.model_construct(
        project="desk", completion_id="c", scored="c", model_id="m", role=RouteRole.PRODUCTION, at=START,
        of="rating", client="app",
    )  # fmt: skip
    up, down = (base.model_copy(update={"rating": thumb}) for thumb in ("up", "down"))
    ends: list[int] = []
    for _ in range(count):
        before = {"baseline": [0, 0], "healthy": [int(rng.binomial(1_000, 0.1)), 1_000]}
        state = detector.open(Opening(drift=DRIFT, weights=WEIGHTS, predecessor=before))
        for number, bad in enumerate((rng.random(ratings) < rate).tolist(), 1):
            detector.see(state, down if bad else up)
            if number % WINDOW == 0 and (finding := detector.look(state)) is not None and finding.drifted:
                ends.append(number)
                break
    return ends
