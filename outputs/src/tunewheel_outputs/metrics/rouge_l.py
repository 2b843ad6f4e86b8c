from __future__ import annotations

from tunewheel_outputs.metric import Metric
from tunewheel_outputs.rouge import rouge_l

METRIC = Metric(
    name="rouge_l",
    about="ROUGE-L: F1 of the longest sequence of words, with gaps, that an answer shares with the expert's.",
    unit="fraction",
    scorer=lambda task, corpus: lambda row: rouge_l(row.output, row.expected),
)
