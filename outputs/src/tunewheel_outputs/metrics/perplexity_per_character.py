from __future__ import annotations

from tunewheel_outputs.metric import Metric, Score

METRIC = Metric(
    name="perplexity_per_character",
    about="exp of the mean negative log-likelihood per character of the experts' answers: comparable between "
    "models whose tokenizers differ.",
    unit="perplexity per character",
    lower_is_better=True,
    lowest=1.0,
    highest=None,
    test="ratio",
    ignores_text=True,
    scorer=lambda task, corpus: lambda row: Score(row.nll, max(1, len(row.expected))),
)
