"""Labels that the other examples do not bear out: confident learning, out of fold.

Northcutt, Jiang and Chuang (2021), "Confident learning: estimating uncertainty in dataset labels", as
cleanlab implements it. The classifier is TF-IDF of words and word pairs under logistic regression (fitted
by stochastic gradient): it reads the words, not the meaning, so what it doubts is a hint for people and never
a reason to drop.
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
"""A classifier that is right less often out of fold doubts labels for want of anything better."""
HOPEFUL = 0.5
"""What one epoch must reach for the others to be worth their time: on banking77, with noise in texts and
labels or without, they added at most .13 to a few hundred examples, .02 to five thousand."""
DECIMALS = 3
"""Of the confidence: finer differences are those of processors, not of examples."""

SUSPECT_SCHEMA: dict[str, pl.DataType] = {
    "record_id": pl.String(),
    "suggested": pl.String(),
    "confidence": pl.Float64(),
}


@dataclass(frozen=True)
class Suspects:
    """What a classifier doubts, and how far it looked."""

    found: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SUSPECT_SCHEMA))
    """``SUSPECT_SCHEMA``, the least believed first."""
    labelled: int = 0
    """Examples with a label."""
    looked_at: int = 0
    """Those of them that the classifier judged."""
    why_not: str | None = None
    """Why it judged none."""


def find_suspects(records: pl.DataFrame, policy: LabelReview) -> Suspects:
    """Look for records (columns ``record_id``, ``key``, ``label``) whose label is in doubt.

    Records without a label, and labels with fewer than ``FOLDS`` records, are left out. Nobody is doubted
    where the words do not tell the labels apart (``MIN_ACCURACY``).
    """
    all_labelled = records.select("record_id", "key", "label").drop_nulls("label")
    labelled = (
        all_labelled.filter(pl.len().over("label") >= FOLDS)
        .sort("record_id")  # a hash: the first of many are a fair sample of them
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
    """Return ``SUSPECT_SCHEMA`` rows; None where the words do not tell the labels apart."""
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
    # One fold tells whether the others are worth their time, and mostly the first epoch whether it is itself.
    known, asked = next(folds.split(texts, labels))
    read, unread = vectors.fit_transform(texts[known]), vectors.transform(texts[asked])
    for epochs, enough in ((1, HOPEFUL), (EPOCHS, MIN_ACCURACY)):
        tried = SGDClassifier(max_iter=epochs, **options).fit(read, labels[known])
        if tried.score(unread, labels[asked]) < enough:
            return None
    from cleanlab.filter import find_label_issues  # half as much again to load as scikit-learn

    chances = np.asarray(cross_val_predict(model, texts, labels, cv=folds, method="predict_proba", n_jobs=1))
    issues = find_label_issues(labels, chances, return_indices_ranked_by="self_confidence", n_jobs=1)
    confidence = [round(float(chances[row, labels[row]]), DECIMALS) for row in issues]
    suggested = [names[int(chances[row].argmax())] for row in issues]
    found = {
        "record_id": labelled["record_id"].gather(issues), "suggested": suggested, "confidence": confidence,
    }  # fmt: skip
    return pl.DataFrame(found, schema=SUSPECT_SCHEMA).sort("confidence", "record_id")
