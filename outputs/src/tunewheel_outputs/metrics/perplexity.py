from __future__ import annotations

from tunewheel_outputs.metric import Metric, Score

METRIC = Metric(
    name="perplexity",
    about="exp of the mean negative log-likelihood per token of the experts' answers.",
    unit="perplexity",
    lower_is_better=True,
    lowest=1.0,
    highest=None,
    test="ratio",
    per_token=True,
    ignores_text=True,
    scorer=lambda task, corpus: lambda row: Score(row.nll, row.tokens),
)
