"""Estimates the accuracy of labels from the model's own probabilities of them, without knowing the truth, and
detects that it fell.

The evaluation says how often a label is right of which the model is so sure (``Calibration``). The mean over
production's answers is the estimate (Garg et al., "Leveraging unlabeled data to predict out-of-distribution
performance", ICLR 2022, call it average confidence). It assumes that production's answers are as often right
as held-out ones of the same confidence. So it sees that questions became harder. Of questions about subjects
that no label fits it sees only what makes the model less sure.

The standard is the version's own first answers, since two versions' calibrations have errors of their own.
The test is that of ``rates.py``: an item is bad to the degree that its label is probably wrong.
"""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_outputs.confidence import label_probability, logit, share_right

from tunewheel_monitor.detectors.labels import LONGEST
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise
from tunewheel_monitor.detectors.shares import KINDS, OTHER, faded

LATELY = 300.0
"""The estimate is over about so many recent answers; older ones fade."""
FEWEST = 30
"""The least number of answers in an estimate."""
Z = 1.96
"""The estimate's interval contains the true accuracy with probability .95."""


class Confidence(Rise):
    name = "confidence"
    weight = 0.01
    floor = 0.1
    action = "investigate"
    unit = "estimated accuracy"
    per_user = 20

    def measure(self, data: InferenceCompleted) -> float | None:
        return label_probability(data.confidence)

    def open(self, opening: Opening) -> State:
        begun = super().open(replace(opening, predecessor=None))
        known = opening.calibration
        lately = {"sums": [0.0] * 4, "labels": {}, "fresh": {}}
        return begun | {"calibration": known and known.model_dump(mode="json")} | lately

    def bad(self, state: State, item: InferenceScored) -> float | None:
        """Return the probability that the label is wrong. An answer without a label is wrong."""
        sure, known = item.measures.get(self.name), state["calibration"]
        if known is None or sure is None or item.overrides:
            return None
        return 1.0 - share_right(sure, known["intercept"], known["slope"]) if sure > 0 else 1.0

    def see(self, state: State, item: InferenceScored) -> bool | None:
        if super().see(state, item) is None:
            return None
        wrong, odds = self.bad(state, item) or 0.0, logit(item.measures[self.name])
        slope = wrong * (1.0 - wrong)
        new = (1.0, 1.0 - wrong, slope, slope * odds)
        state["sums"] = [round(before + more, 6) for before, more in zip(state["sums"], new, strict=True)]
        label, fresh = (item.label or "")[:LONGEST], state["fresh"]
        label = label if label in fresh or len(fresh) < KINDS else OTHER
        fresh[label] = fresh.get(label, 0) + 1
        return None  # slices count all answers, and few are measured

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        finding = super().look(state, floor)
        state["labels"], state["fresh"] = faded(state["labels"], state["fresh"], LATELY), {}
        items = state["sums"][0]
        if finding is None or items < FEWEST:
            return None
        accuracy, error = estimate(state)
        kept = min(1.0, LATELY / items)
        state["sums"] = [round(kept * total, 6) for total in state["sums"]]
        usual, known = 1.0 - (finding.usual or 0.0), state["calibration"]
        return replace(
            finding,
            statistic=accuracy,
            usual=usual,
            effect=usual - accuracy,
            effect_unit=f"fall of the {self.unit}",
            reference=f"the first {state['baseline'][1]:.0f} measured answers, {usual:.1%}; calibrated on "
            f"{known['rows']} held-out rows",
            low=max(0.0, accuracy - Z * error),
            high=min(1.0, accuracy + Z * error),
        )


def estimate(state: State) -> tuple[float, float]:
    """Return the estimated accuracy lately, and its standard error.

    The error has three causes: the calibration rests on few rows; few answers are measured; and labels differ
    in accuracy, which matters if a few labels are most of the traffic."""
    items, right, slope, slope_odds = state["sums"]
    known, labels = state["calibration"], state["labels"].values()
    first, both, second = known["covariance"]
    one, other = slope / items, slope_odds / items
    curve = one * one * first + 2 * one * other * both + other * other * second
    uneven = known["spread"] ** 2 * sum(count * count for count in labels) / max(sum(labels), 1e-9) ** 2
    return right / items, sqrt(max(0.0, curve) + slope / items**2 + uneven)
