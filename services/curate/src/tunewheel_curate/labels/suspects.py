"""Labels that the other examples do not bear out: confident learning, out of fold.

Northcutt, Jiang and Chuang (2021), "Confident learning: estimating uncertainty in dataset labels", as
cleanlab implements it. The classifier is TF-IDF of words and word pairs under logistic regression (fitted
by stochastic gradient): it reads the words, not the meaning, so what it doubts is a hint for people and never
a reason to drop.
"""

from __future__ import annotations

from typing import Any

import polars as pl
from tunewheel_contracts.formats.data_quality import LabelReview

FOLDS = 5
SEED = 17
EPOCHS = 6
MIN_ACCURACY = 0.6
"""A classifier that is right less often out of fold doubts labels for want of anything better."""
DECIMALS = 3
"""Of the confidence: finer differences are those of processors, not of examples."""

SUSPECT_SCHEMA: dict[str, pl.DataType] = {
    "record_id": pl.String(),
    "suggested": pl.String(),
    "confidence": pl.Float64(),
}


def find_suspects(records: pl.DataFrame, policy: LabelReview) -> pl.DataFrame:
    """Return ``SUSPECT_SCHEMA`` rows for the records (columns ``record_id``, ``key``, ``label``) whose label
    is in doubt, the least believed first.

    Records without a label, and labels with fewer than ``FOLDS`` records, are left out. Nobody is doubted
    where the words do not tell the labels apart (``MIN_ACCURACY``).
    """
    labelled = (
        records.select("record_id", "key", "label")
        .drop_nulls("label")
        .filter(pl.len().over("label") >= FOLDS)
        .sort("record_id")  # a hash: the first of many are a fair sample of them
        .head(policy.max_examples)
        .filter(pl.len().over("label") >= FOLDS)
    )
    if not policy.suspects or labelled.height < policy.min_examples or labelled["label"].n_unique() < 2:
        return pl.DataFrame(schema=SUSPECT_SCHEMA)
    return _doubted(labelled)


def _doubted(labelled: pl.DataFrame) -> pl.DataFrame:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline

    names = labelled["label"].unique().sort().to_list()
    number = {name: position for position, name in enumerate(names)}
    labels = np.array([number[label] for label in labelled["label"]])
    classifier: dict[str, Any] = {
        "loss": "log_loss", "alpha": 3e-5, "max_iter": EPOCHS, "tol": None, "random_state": SEED,
    }  # fmt: skip
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=50_000),
        SGDClassifier(**classifier),
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SEED)
    texts = labelled["key"].to_numpy()
    known, asked = next(folds.split(texts, labels))  # one fold tells whether the others are worth their time
    if model.fit(texts[known], labels[known]).score(texts[asked], labels[asked]) < MIN_ACCURACY:
        return pl.DataFrame(schema=SUSPECT_SCHEMA)
    from cleanlab.filter import find_label_issues  # half as much again to load as scikit-learn

    chances = np.asarray(cross_val_predict(model, texts, labels, cv=folds, method="predict_proba", n_jobs=1))
    issues = find_label_issues(labels, chances, return_indices_ranked_by="self_confidence", n_jobs=1)
    confidence = [round(float(chances[row, labels[row]]), DECIMALS) for row in issues]
    suggested = [names[int(chances[row].argmax())] for row in issues]
    found = {
        "record_id": labelled["record_id"].gather(issues), "suggested": suggested, "confidence": confidence,
    }  # fmt: skip
    return pl.DataFrame(found, schema=SUSPECT_SCHEMA).sort("confidence", "record_id")
