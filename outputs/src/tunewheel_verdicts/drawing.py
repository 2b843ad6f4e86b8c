"""Draws the figures of models of a stated quality, on rows of customers.

A customer's rows are alike: each customer has rates of its own, drawn about those of the model (Dirichlet;
for scores, normal).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_outputs.metric import Metric
from tunewheel_outputs.metrics import find_metric

from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.proportions import EXACT_UP_TO, mcnemar, paired_rejected
from tunewheel_verdicts.sign_flips import Floats
from tunewheel_verdicts.significance import Advantage, Scores
from tunewheel_verdicts.verdict import is_about_champion

Ints = NDArray[np.int64]
FLIPS = 2_000
"""The sign flips of a drawn comparison; a verdict has ten times as many, which moves no probability."""
OWN = ("holdout", "retrieval", "judge")
"""What metrics of the project's own rows are ``on``."""
GENERAL = 200
"""Items of the general-regression set, and questions of a task of lm-eval."""
_POOL, _POOLED = 8, 600_000
"""How many times as many models are drawn as are judged; at most so many rows."""
_TOKENS = 32.0
_NUDGE = 1e-6
CORRELATION = 0.05
"""How alike the rows of a customer are assumed to be."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of one metric, in its unit. A later candidate is compared with a champion that has
    ``champion``; the first candidate itself has ``champion``."""

    base: float
    champion: float
    differ: float = 0.2
    """Of hits: the share of rows that candidate and champion answer differently. Of scores, and of nats per
    token: the standard deviation of a row's difference."""
    spread: float = 0.25
    """Of scores, and of nats per token: the standard deviation of rows."""
    gains: bool = True
    """Whether a better model is better by this metric. Otherwise it equals the champion."""


_FORM = Expected(base=0.35, champion=0.98, differ=0.04, spread=0.05, gains=False)
_KEPT = Expected(base=0.6, champion=0.6, gains=False)
_ASSUMED = {
    "valid_output": _FORM,
    "rule_compliance": _FORM,
    "domain_language": _FORM,
    "invented_terms": Expected(base=0.4, champion=0.02, differ=0.04, gains=False),
    "refusal_rate": Expected(base=0.5, champion=0.9, differ=0.1, gains=False),
    "groundedness": Expected(base=0.5, champion=0.85, spread=0.2, gains=False),
}


def assumed_of(name: str) -> Expected:
    """Return what is assumed of a metric that was not measured."""
    metric = find_metric(name)
    if metric is None or name in _ASSUMED:
        return _ASSUMED.get(name, _KEPT)
    if metric.on == "judge":  # how often the candidate is preferred to the champion
        return Expected(base=0.5, champion=0.5, spread=0.35)
    if metric.on != "holdout":
        return replace(_KEPT, base=0.8, champion=0.8) if metric.on == "retrieval" else _KEPT
    if metric.test == "ratio":
        return Expected(base=20.0, champion=6.0, differ=0.15, spread=0.6)
    return Expected(base=0.35, champion=0.75 if metric.test == "proportion" else 0.6)


@dataclass(frozen=True, slots=True)
class Case:
    """The rows that models are judged by, and the rules."""

    sizes: tuple[int, ...]
    """The held-out rows of each customer."""
    looks: int
    resolution: float
    rivals: int
    correlation: float = CORRELATION
    """How alike two rows of a customer are."""


def drawn(
    metric: Metric, criterion: Criterion, expected: Expected, case: Case, gain: float | None, draws: int
) -> Iterator[Measured]:
    """Yield draws in a random order, stratified by what mostly decides: of a larger number, sorted by the
    observed advantage, every n-th."""
    sizes = np.array(case.sizes if metric.on in OWN else [1] * GENERAL)
    rng, clusters = np.random.default_rng(29), np.repeat(np.arange(len(sizes)), sizes)
    pool = max(draws, min(_POOL * draws, _POOLED // len(clusters)))
    draw = _hits if metric.test == "proportion" else _scores
    contestants = draw(rng, metric, expected, clusters, case.correlation, gain or 0.0, pool)
    candidate, champion, base = (one.mean(axis=1) for one in contestants)
    if is_about_champion(criterion) and gain is not None:
        other = champion
    else:
        other = np.zeros(pool) if criterion.over_base is None else base
    ordered = np.lexsort((base, candidate - other))
    picked = ordered[np.linspace(0.5, len(ordered) - 0.5, draws).astype(int)]
    over = (criterion.over_base, criterion.over_champion, 0.0)
    bounds = {bound for bound in over if bound is not None}
    weights = np.full(len(clusters), _TOKENS) if metric.test == "ratio" else None
    for number in rng.permutation(picked):
        by_role = dict(zip((Role.CANDIDATE, Role.CHAMPION, Role.BASE), contestants, strict=True))
        if gain is None:
            del by_role[Role.CHAMPION]
        yield Drawn(
            name=metric.name, test=metric.test, lower_is_better=metric.lower_is_better, lowest=metric.lowest,
            highest=float("inf") if metric.highest is None else metric.highest, on=metric.on,
            scores={role: Scores(rows[number], weights) for role, rows in by_role.items()},
            clusters=clusters, unit=metric.unit, flips=FLIPS, looks=case.looks,
            bounds=tuple(sorted(bounds)),
        )  # fmt: skip


@dataclass(frozen=True)
class Drawn(Measured):
    """A drawn metric. Where each row is a cluster of its own, an end of a difference's interval is told no
    finer than on which side of ``bounds`` it lies: that is all that decides, and exact ends take long."""

    bounds: tuple[float, ...] = ()

    def against(self, role: Role, *, alpha: float, seed: int) -> Advantage | None:
        rows = len(self.clusters)
        exact = self.test == "proportion" and rows == len(np.unique(self.clusters)) <= EXACT_UP_TO
        if not exact or role not in self.scores:
            return super().against(role, alpha=alpha, seed=seed)
        sign = -1 if self.lower_is_better else 1
        difference = sign * (self.scores[Role.CANDIDATE].values - self.scores[role].values)
        gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
        return Advantage(
            difference=(gained - lost) / rows,
            p_value=mcnemar(gained, lost),
            low=max((b + _NUDGE for b in self.bounds if _above(gained, lost, rows, b, alpha)), default=-1.0),
            high=min((b - _NUDGE for b in self.bounds if _above(lost, gained, rows, -b, alpha)), default=1.0),
            alpha=alpha,
            test="mcnemar_exact",
            rows=rows,
            clusters=rows,
            spread=float(difference.std()),
        )


def _above(gained: int, lost: int, rows: int, bound: float, alpha: float) -> bool:
    """Return whether the difference is shown to exceed ``bound``; see ``proportions.paired_low``."""
    if gained == lost == 0:
        return alpha ** (1 / rows) - 1 > bound
    return -1 < bound < 1 and bool(paired_rejected(rows, bound, alpha=alpha)[gained, lost])


def _hits(
    rng: np.random.Generator, metric: Metric, expected: Expected, clusters: Ints, alike: float, gain: float,
    draws: int,
) -> tuple[Floats, ...]:  # fmt: skip
    """Draw hits of candidate, champion and base: each of shape (draws, rows)."""
    right, differ = expected.champion, max(expected.differ, abs(gain))
    won, lost = min((differ + gain) / 2, 1 - right), min((differ - gain) / 2, right)
    pair = _outcomes(rng, [won, lost, right - lost, 1 - right - won], clusters, alike, draws)
    base = _outcomes(rng, [expected.base, 1 - expected.base], clusters, alike, draws)
    hits = (pair == 0) | (pair == 2), (pair == 1) | (pair == 2), base == 0
    return tuple(hit.astype(np.float64) for hit in hits)


def _outcomes(
    rng: np.random.Generator, shares: Sequence[float], clusters: Ints, alike: float, draws: int
) -> Ints:
    """Draw one of ``len(shares)`` outcomes for every row: shape (draws, rows)."""
    count = int(clusters[-1]) + 1
    if alike > 0 and count < len(clusters):
        own = rng.gamma(np.maximum(shares, 0) * (1 / alike - 1), size=(draws, count, len(shares))) + 1e-300
        limits = (own / own.sum(axis=2, keepdims=True)).cumsum(axis=2)[:, clusters, :-1]
    else:
        limits = np.cumsum(shares)[None, None, :-1]
    return (rng.random((draws, len(clusters), 1)) > limits).sum(axis=2)


def _scores(
    rng: np.random.Generator, metric: Metric, expected: Expected, clusters: Ints, alike: float, gain: float,
    draws: int,
) -> tuple[Floats, ...]:  # fmt: skip
    """Draw scores, or nats, of candidate, champion and base: each of shape (draws, rows)."""
    own, base, apart = (
        alike**0.5 * rng.standard_normal((draws, int(clusters[-1]) + 1))[:, clusters]
        + (1 - alike) ** 0.5 * rng.standard_normal((draws, len(clusters)))
        for _ in range(3)
    )
    half, spread, figure = expected.differ / 2, expected.spread, expected.champion
    noise = (spread * own + half * apart, spread * own - half * apart, spread * base)
    if metric.test == "ratio":
        levels = (figure * (1 - gain), figure, expected.base)
        return tuple(
            np.maximum(np.log(max(level, 1.001)) + one, 0) * _TOKENS
            for level, one in zip(levels, noise, strict=True)
        )
    deviations = (float(np.hypot(spread, half)),) * 2 + (spread,)
    levels = (figure + gain, figure, expected.base)
    return tuple(
        np.clip(_centre(round(level, 6), round(sd, 6)) + one, 0, 1)
        for level, sd, one in zip(levels, deviations, noise, strict=True)
    )


@lru_cache(maxsize=256)
def _centre(mean: float, sd: float) -> float:
    """Return the middle of a normal that has ``mean`` once it is cut off at 0 and 1."""
    from scipy.special import ndtr

    def cut(middle: float) -> float:
        low, high = -middle / sd, (1 - middle) / sd
        density = (np.exp(-low * low / 2) - np.exp(-high * high / 2)) / (2 * np.pi) ** 0.5
        return float(middle * (ndtr(high) - ndtr(low)) + sd * density + 1 - ndtr(high))

    below, above = -2.0, 3.0
    for _ in range(40):
        middle = (below + above) / 2
        below, above = (middle, above) if cut(middle) < min(max(mean, 0.001), 0.999) else (below, middle)
    return (below + above) / 2
