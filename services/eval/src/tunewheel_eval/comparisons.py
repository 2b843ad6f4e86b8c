"""The candidate against another contestant, metric by metric, on the same examples."""

from __future__ import annotations

from tunewheel_contracts.formats.criteria import Metric
from tunewheel_contracts.formats.scorecard import Comparison, Role

from tunewheel_eval.metrics import Outcomes
from tunewheel_eval.significance import Advantage, bootstrap_mean, bootstrap_perplexity, mcnemar


def compare(candidate: Outcomes, other: Outcomes, *, against: Role, seed: int) -> tuple[Comparison, ...]:
    """Test every metric that both have: McNemar for hits and misses, the bootstrap for the rest."""
    comparisons: list[Comparison] = []
    for metric in Metric:
        mine, theirs = candidate.hits(metric), other.hits(metric)
        if mine is not None and theirs is not None:
            comparisons.append(_comparison(metric, against, "mcnemar_exact", mcnemar(mine, theirs)))
    rouge = bootstrap_mean(candidate.rouge_l, other.rouge_l, seed=seed)
    comparisons.append(_comparison(Metric.ROUGE_L, against, "paired_bootstrap", rouge))
    surprise = bootstrap_perplexity(candidate.nll, candidate.tokens, other.nll, other.tokens, seed=seed)
    comparisons.append(_comparison(Metric.PERPLEXITY, against, "paired_bootstrap", surprise))
    return tuple(comparisons)


def _comparison(metric: Metric, against: Role, test: str, advantage: Advantage) -> Comparison:
    return Comparison(
        metric=metric,
        against=against,
        test=test,  # type: ignore[arg-type]
        difference=advantage.difference,
        p_value=advantage.p_value,
        ci_low=advantage.ci_low,
        ci_high=advantage.ci_high,
    )
