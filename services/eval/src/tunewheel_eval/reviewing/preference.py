"""Summarises the answers of several reviewers: the preference with its interval, and their agreement.

Sources: Wilson, "Probable inference, the law of succession, and statistical inference" (JASA 22, 1927), for
the interval, with the effective size of a stratified sample (Cochran, "Sampling Techniques", 1977, chapter 5;
Korn and Graubard, "Survey Methodology" 24, 1998). Krippendorff, "Content Analysis" (4th edition, 2018),
chapter 12, for alpha. In its ordinal form the distance between ``worse`` and ``better`` is larger than
between ``same`` and either of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from tunewheel_contracts.events.evaluation import ReviewAnswered
from tunewheel_contracts.formats.review import ReviewOutcome

from tunewheel_eval.scorecards import MOST_KEPT, shortened

SCORES = {"worse": 0.0, "same": 0.5, "better": 1.0}
_CONFIDENCE = 0.95


def outcome_of(
    answers: Mapping[str, Sequence[ReviewAnswered]],
    *,
    strata: Mapping[str, str] = MappingProxyType({}),
    sizes: Mapping[str, int] = MappingProxyType({}),
    equal: int = 0,
    comments: Iterable[str] = (),
    overrides: Iterable[str] = (),
) -> ReviewOutcome:
    """Summarise the answers, given by person. A person answers an item at most once.

    Args:
        strata: the stratum of each item. sizes: how many held-out prompts each stratum has. equal: how many
        prompts got two equal answers.
    """
    said = [answer for own in answers.values() for answer in own]
    counts = Counter(answer.preference for answer in said)
    by_stratum: dict[str, list[float]] = defaultdict(list)
    for item_id, score in item_scores(said).items():
        by_stratum[strata.get(item_id, "")].append(score)
    found = [(sizes.get(name, len(scores)), scores) for name, scores in by_stratum.items()]
    preference, low, high = preferred(found, equal=equal)
    return ReviewOutcome(
        reviewers=len(answers),
        answers=len(said),
        better=counts["better"],
        same=counts["same"],
        worse=counts["worse"],
        preference=preference,
        preference_low=low,
        preference_high=high,
        alpha=agreement(answers),
        reasons=dict(sorted(Counter(reason for one in said for reason in set(one.reasons)).items())),
        comments=tuple(text for comment in comments if (text := shortened(comment, MOST_KEPT))),
        overrides=tuple(overrides),
    )


def item_scores(said: Iterable[ReviewAnswered]) -> dict[str, float]:
    """Return each item's mean score. All reviewers of an item see the same two answers, so an item is one
    observation."""
    by_item: dict[str, list[float]] = defaultdict(list)
    for answer in said:
        by_item[answer.item_id].append(SCORES[answer.preference])
    return {item_id: float(np.mean(scores)) for item_id, scores in by_item.items()}


def preferred(strata: Sequence[tuple[int, Sequence[float]]], *, equal: int = 0) -> tuple[float, float, float]:
    """Return the preference over all prompts (0 to 1) with its 95 % interval. Without items: 0.5, from 0
    to 1.

    Each stratum counts by its number of prompts, so that drawing more of one does not move the preference.
    Prompts with equal answers are ties that nobody needs to judge. The interval is Wilson's, by the number of
    coin flips that would vary as much as the observed scores: ties vary less. Where all scores are equal,
    nothing varies, and the items count as coin flips.

    Args:
        strata: for each stratum its number of prompts, and the scores of the judged ones (at least one).
    """
    from scipy.special import stdtrit

    count = sum(len(scores) for _, scores in strata)
    if not count:
        return 0.5, 0.0, 1.0
    weights = np.array([size for size, _ in strata], dtype=np.float64)
    differing = float(weights.sum() / (weights.sum() + equal))
    weights /= weights.sum()
    means = np.array([np.mean(scores) for _, scores in strata])
    share = float(weights @ means)
    n, freedom = _effective_size(share, weights, strata)
    z = float(stdtrit(freedom, 1 - (1 - _CONFIDENCE) / 2))
    centre = share + z**2 / (2 * n)
    spread = z * float(np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)))
    bounds = (share, (centre - spread) / (1 + z**2 / n), (centre + spread) / (1 + z**2 / n))
    middle, low, high = (0.5 + differing * (bound - 0.5) for bound in bounds)
    return middle, max(0.0, low), min(1.0, high)


def _effective_size(
    share: float, weights: np.ndarray[Any, Any], strata: Sequence[tuple[int, Sequence[float]]]
) -> tuple[float, float]:
    """Return the number of coin flips with the mean ``share`` whose mean varies as the stratified mean does,
    and the degrees of freedom of Student's t."""
    scores = np.concatenate([np.asarray(one, dtype=np.float64) for _, one in strata])
    overall = float(scores.var(ddof=1)) if len(scores) > 1 else 0.0
    # One score alone does not tell how its stratum varies.
    own = [float(np.var(one, ddof=1)) if len(one) > 1 else overall for _, one in strata]
    varies = sum(w**2 * var / len(one) for w, var, (_, one) in zip(weights, own, strata, strict=True))
    count, coins = len(scores), share * (1 - share) / len(scores)
    if varies <= 0 or coins <= 0:
        return count, np.inf
    # As if one more item varied as a coin does: few items with a rare answer seem to vary too little.
    return share * (1 - share) * count / (varies * (count - 1) + coins), count - 1


def agreement(answers: Mapping[str, Sequence[ReviewAnswered]]) -> float | None:
    """Return Krippendorff's ordinal alpha. None: no item has two answers, or all those answers are equal, so
    alpha is undefined."""
    scores = [{one.item_id: SCORES[one.preference] for one in own} for own in answers.values()]
    times = Counter(item for own in scores for item in own)
    shared = sorted(item for item, count in times.items() if count > 1)
    table = np.array([[own.get(item, np.nan) for item in shared] for own in scores], dtype=np.float64)
    if not shared or len(np.unique(table[~np.isnan(table)])) < 2:
        return None
    import krippendorff

    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="ordinal"))
