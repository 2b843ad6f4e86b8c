from __future__ import annotations

from tunewheel_outputs.metric import Metric

METRIC = Metric(
    name="regression_accuracy",
    about="Share of the general-regression set that is answered right.",
    unit="fraction",
    on="regression",
    test="proportion",
    scorer=lambda task, corpus: lambda row: float(row.correct),
)
