"""Metrics of lm-evaluation-harness's tasks: ``lm_eval.<task>.<metric>``, with ``.<filter>`` if the task
filters answers.

Models are compared question by question, so only metrics with a value per question are supported. F1, BLEU
and other figures of a whole set are not.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from tunewheel_outputs.metric import Metric

PREFIX = "lm_eval."
UNFILTERED = "none"
"""lm-eval's name for answers without a filter."""


class Form(NamedTuple):
    about: str
    test: Literal["proportion", "ratio"]
    aggregation: str
    """lm-eval's name of the aggregation over questions."""


FORMS = {
    "acc": Form("Share of questions whose likeliest choice or greedy answer is right.", "proportion", "mean"),
    "acc_norm": Form("The same by likelihood per character of the choice.", "proportion", "mean"),
    "acc_bytes": Form("The same by likelihood per byte of the choice.", "proportion", "mean"),
    "acc_mutual_info": Form(
        "The same by what the question adds to the choice's likelihood.", "proportion", "mean"
    ),
    "exact_match": Form("Share of answers that equal the expected one.", "proportion", "mean"),
    "perplexity": Form("exp of the mean negative log-likelihood of a target.", "ratio", "perplexity"),
    "word_perplexity": Form("The same per word of a text.", "ratio", "weighted_perplexity"),
    "byte_perplexity": Form("The same per byte of a text.", "ratio", "weighted_perplexity"),
}  # fmt: skip
"""The supported metrics, by lm-eval's name."""


def figure_name(task: str, metric: str, filter_name: str = UNFILTERED) -> str:
    """Return the name of a task's figure in criteria and scorecards."""
    tail = "" if filter_name == UNFILTERED else f".{filter_name}"
    return f"{PREFIX}{task}.{metric}{tail}"


def task_of(name: str) -> str | None:
    """Return the task in a metric's name; None: it is not a metric of lm-eval."""
    return name.removeprefix(PREFIX).partition(".")[0] if name.startswith(PREFIX) else None


def lm_eval_metric(name: str) -> Metric | None:
    """Return the metric of that name; None where there is none."""
    task = task_of(name)
    form = FORMS.get(name.removeprefix(f"{PREFIX}{task}.").partition(".")[0])
    if task is None or form is None:
        return None
    ratio = form.test == "ratio"
    return Metric(
        name=name,
        about=f"{form.about} lm-evaluation-harness's task {task}.",
        unit="perplexity" if ratio else "fraction",
        lower_is_better=ratio,
        lowest=1.0 if ratio else 0.0,
        highest=None if ratio else 1.0,
        on=f"{PREFIX}{task}",
        test=form.test,
        scorer=lambda task, corpus: lambda row: row.scores.get(name),
    )
