"""Summarises the answers of several reviewers: the preference with its interval, and their agreement.

Sources: Wilson, "Probable inference, the law of succession, and statistical inference" (JASA 22, 1927), for
the interval; Krippendorff, "Content Analysis" (4th edition, 2018), chapter 12, for alpha. In its ordinal form
the distance between ``worse`` and ``better`` is larger than between ``same`` and either of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from tunewheel_contracts.events.evaluation import ReviewAnswered
from tunewheel_contracts.formats.review import ReviewOutcome

from tunewheel_eval.comments import MOST_KEPT, shortened

SCORES = {"worse": 0.0, "same": 0.5, "better": 1.0}
_CONFIDENCE = 0.95


def outcome_of(
    answers: Mapping[str, Sequence[ReviewAnswered]],
    *,
    comments: Iterable[str] = (),
    overrides: Iterable[str] = (),
) -> ReviewOutcome:
    """Summarise the answers, given by person. A person answers an item at most once."""
    said = [answer for own in answers.values() for answer in own]
    counts = Counter(answer.preference for answer in said)
    preference, low, high = preferred(item_scores(said))
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


def item_scores(said: Iterable[ReviewAnswered]) -> list[float]:
    """Return each item's mean score. All reviewers of an item see the same two answers, so an item is one
    observation."""
    by_item: dict[str, list[float]] = defaultdict(list)
    for answer in said:
        by_item[answer.item_id].append(SCORES[answer.preference])
    return [float(np.mean(scores)) for scores in by_item.values()]


def preferred(scores: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean of the items' scores (0 to 1) with its 95 % interval. Without items: 0.5, from 0 to 1.

    Wilson's interval treats each item as a coin flip. Scores between 0 and 1 vary less than coin flips with
    the same mean. So with ties the interval is wider than needed, never narrower.
    """
    from scipy.special import ndtri

    if not scores:
        return 0.5, 0.0, 1.0
    size, share = len(scores), float(np.mean(scores))
    z = float(ndtri(1 - (1 - _CONFIDENCE) / 2))
    centre = share + z**2 / (2 * size)
    spread = z * float(np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2)))
    scale = 1 + z**2 / size
    return share, max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


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
