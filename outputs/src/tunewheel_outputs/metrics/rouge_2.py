from __future__ import annotations

from tunewheel_outputs.metric import Metric
from tunewheel_outputs.rouge import rouge_n

METRIC = Metric(
    name="rouge_2",
    about="ROUGE-2: F1 of the pairs of words that an answer shares with the expert's.",
    unit="fraction",
    scorer=lambda task, corpus: lambda row: rouge_n(row.output, row.expected, 2),
)
