from __future__ import annotations

from tunewheel_contracts.formats.judge import JUDGED

from tunewheel_outputs.metric import Metric

METRIC = Metric(
    name=JUDGED,
    about="Share of held-out questions on which the judge of `evaluation.judge` prefers the candidate's "
    "answer to the champion's, a tie counting half, with the judge's error taken out by people's reviews.",
    unit="fraction",
    on="judge",
    # two answers are compared, and not one scored: eval fills the figure in
    scorer=lambda task, corpus: lambda row: None,
)
