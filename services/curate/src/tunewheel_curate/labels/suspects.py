"""Finds labels that a classifier trained on the other examples doubts (confident learning, out of fold).

Source: Northcutt, Jiang and Chuang (2021), "Confident learning: estimating uncertainty in dataset labels", as
cleanlab implements it. The classifier is logistic regression (fitted by stochastic gradient) on TF-IDF of
words and word pairs. It sees words, not their meaning. So a doubt is a hint for people and never a reason to
drop.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl
from tunewheel_contracts.formats.data_quality import LabelReview

FOLDS = 5
SEED = 17
EPOCHS = 6
MIN_ACCURACY = 0.6
"""The least accuracy out of fold. Below it the classifier's doubts mean nothing."""
HOPEFUL = 0.5
"""The accuracy that the first epoch must reach; otherwise the other epochs are not run. On banking77, with
and without noise in texts and labels, more epochs added at most .13 with a few hundred examples and .02 with
five thousand."""
DECIMALS = 3
"""Decimals of the confidence. Smaller differences come from the processor, not from the examples."""

SUSPECT_SCHEMA: dict[str, pl.DataType] = {
    "record_id": pl.String(),
    "suggested": pl.String(),
    "confidence": pl.Float64(),
}


@dataclass(frozen=True)
class Suspects:
    """The labels that a classifier doubts, and how many it judged."""

    found: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SUSPECT_SCHEMA))
    """Rows of ``SUSPECT_SCHEMA``, lowest confidence first."""
    labelled: int = 0
    """How many examples have a label."""
    looked_at: int = 0
    """How many labelled examples the classifier judged."""
    why_not: str | None = None
    """Why the classifier judged none."""


def find_suspects(records: pl.DataFrame, policy: LabelReview) -> Suspects:
    """Look for records (columns ``record_id``, ``key``, ``label``) whose label is in doubt.

    Unlabelled records, and labels with fewer than ``FOLDS`` records, are left out. If words do not tell the
    labels apart (``MIN_ACCURACY``), no label is doubted.
    """
    all_labelled = records.select("record_id", "key", "label").drop_nulls("label")
    labelled = (
        all_labelled.filter(pl.len().over("label") >= FOLDS)
        .sort("record_id")  # ids are hashes, so the first ones are a random sample
        .head(policy.max_examples)
        .filter(pl.len().over("label") >= FOLDS)
    )
    why_not = _why_not(labelled, policy)
    found = _doubted(labelled) if why_not is None else None
    if found is None:
        unlike = f"the words of under {MIN_ACCURACY:.0%} of the examples tell their label"
        return Suspects(labelled=all_labelled.height, why_not=why_not or unlike)
    return Suspects(found, labelled=all_labelled.height, looked_at=labelled.height)


def _why_not(labelled: pl.DataFrame, policy: LabelReview) -> str | None:
    if not policy.suspects:
        return "dataset.label_review.suspects is off"
    if labelled.height < policy.min_examples:
        return (
            f"{labelled.height} examples bear a label that {FOLDS} or more bear, and "
            f"dataset.label_review.min_examples is {policy.min_examples}"
        )
    return "all examples bear the same label" if labelled["label"].n_unique() < 2 else None


def _doubted(labelled: pl.DataFrame) -> pl.DataFrame | None:
    """Return ``SUSPECT_SCHEMA`` rows; None: the words do not tell the labels apart."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    names = labelled["label"].unique().sort().to_list()
    number = {name: position for position, name in enumerate(names)}
    labels = np.array([number[label] for label in labelled["label"]])
    options: dict[str, Any] = {
        "loss": "log_loss", "alpha": 3e-5, "tol": None, "random_state": SEED,
    }  # fmt: skip
    vectors = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=50_000)
    model = make_pipeline(vectors, SGDClassifier(max_iter=EPOCHS, **options))
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    texts = labelled["key"].to_numpy()
    # The first epoch of one fold mostly shows whether more epochs and folds are worth running.
    learnt, asked = next(folds.split(texts, labels))
    read, unread = vectors.fit_transform(texts[learnt]), vectors.transform(texts[asked])
    for epochs, enough in ((1, HOPEFUL), (EPOCHS, MIN_ACCURACY)):
        tried = SGDClassifier(max_iter=epochs, **options).fit(read, labels[learnt])
        if tried.score(unread, labels[asked]) < enough:
            return None
    from cleanlab.filter import find_label_issues  # slow to import, so only if it is needed

    chances = np.asarray(cross_val_predict(model, texts, labels, cv=folds, method="predict_proba", n_jobs=1))
    issues = find_label_issues(labels, chances, return_indices_ranked_by="self_confidence", n_jobs=1)
    confidence = [round(float(chances[row, labels[row]]), DECIMALS) for row in issues]
    suggested = [names[int(chances[row].argmax())] for row in issues]
    found = {
        "record_id": labelled["record_id"].gather(issues), "suggested": suggested, "confidence": confidence,
    }  # fmt: skip
    return pl.DataFrame(found, schema=SUSPECT_SCHEMA).sort("confidence", "record_id")
