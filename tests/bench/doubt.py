"""How many wrong answers are sent, and how many questions about unknown subjects are answered, if a project
abstains.

Questions are those of banking77 and of nlupp's banks and hotels (an intent, or several together, is a label).
An eighth of the labels is unknown: no question of them trains or is held out, and they are a tenth of the
traffic. Classifiers stand for a tuned model: logistic regression on the vectors of a sentence encoder and on
static vectors, and naive Bayes on words, which is far too sure. Eval's calibration and threshold are found on
held-out rows of known labels.

The frontier says what no rule by this confidence can pass: of all thresholds, the one that answers most known
questions with at most .06 of the answers wrong. Beside it, the area under the curve of unknown against known
questions, by what an engine or the gateway could also measure.

    make bench NAME=doubt ARGS="--draws 4"
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import warnings
from collections import Counter, defaultdict
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from questions import DATA
from report import write_report
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import MultinomialNB
from tunewheel_contracts.formats.confidence import AbstainSpec
from tunewheel_embedding.sentence import SentenceEmbedder
from tunewheel_embedding.static import StaticEmbedder, unit_length
from tunewheel_eval.abstention import abstention
from tunewheel_eval.calibration import calibrated
from tunewheel_outputs.confidence import share_right

RISK, SHOWN_RISK, UNKNOWN = 0.05, 0.06, 0.1
FEWEST = 12
"""A label of fewer questions is left out."""
MOST = 6_000
"""So many questions of a set are drawn, at most."""
Set = tuple[list[str], Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=4)
    given = parser.parse_args()
    for name in ("banking77", "nlupp"):
        if not (DATA / name).is_dir():
            sys.exit(f"{DATA / name} is missing: the benchmark needs it there")
    warnings.filterwarnings("ignore")  # the classifiers need not converge
    told: dict[str, dict[str, float]] = {}
    for name, (texts, labels) in {"banking77": banking(), "nlupp": nlupp()}.items():
        chosen = np.random.default_rng(71).permutation(len(texts))[:MOST]
        texts, labels = [texts[n] for n in chosen], labels[chosen]
        inputs = {
            "encoder": SentenceEmbedder().units(texts),
            "static": unit_length(StaticEmbedder().embed(texts)),
        }
        found: dict[str, list[dict[str, float]]] = defaultdict(list)
        for draw in range(given.draws):
            for model, figures in drawn(texts, labels, inputs, np.random.default_rng((72, draw))).items():
                found[f"{name}, {model}"].append(figures)
        for case, figures in found.items():
            told[case] = {key: round(float(np.mean([one[key] for one in figures])), 3) for key in figures[0]}
            print(case, told[case], flush=True)
    write_report("doubt", packages=("numpy", "scikit-learn"), contenders=told, ratios={}, draws=given.draws)


def banking() -> Set:
    rows = [
        row
        for split in ("train", "test")
        for row in csv.DictReader((DATA / "banking77" / f"{split}.csv").open(encoding="utf-8"))
    ]
    return [row["text"] for row in rows], np.array([row["category"] for row in rows])


def nlupp() -> Set:
    rows = [
        (row["text"], " ".join(sorted(row["intents"])))
        for world in ("banking", "hotels")
        for path in sorted((DATA / "nlupp" / world).glob("fold*.json"))
        for row in json.loads(path.read_text(encoding="utf-8"))
        if row.get("intents")
    ]
    counts = Counter(label for _, label in rows)
    rows = [one for one in rows if counts[one[1]] >= FEWEST]
    return [text for text, _ in rows], np.array([label for _, label in rows])


def drawn(texts: list[str], labels: Any, inputs: dict[str, Any], rng: Any) -> dict[str, dict[str, float]]:
    """Return each model's figures on one draw of unknown labels."""
    kinds = np.unique(labels)
    unknown = np.isin(labels, rng.choice(kinds, max(3, len(kinds) // 8), replace=False))
    pool = rng.permutation(np.where(~unknown)[0])
    train, held_out, known = np.split(pool, [int(0.6 * len(pool)), int(0.8 * len(pool))])
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\w+")
    words.fit([texts[n] for n in train])
    counted = words.transform(texts) * 6
    models = {
        "logistic regression, encoder": (LogisticRegression(C=20, max_iter=60), inputs["encoder"]),
        "logistic regression, static": (LogisticRegression(C=20, max_iter=60), inputs["static"]),
        "naive Bayes": (MultinomialNB(alpha=0.05), counted),
    }
    return {
        name: judged(model.fit(x[train], labels[train]), x, labels, inputs["static"],
                     train=train, held_out=held_out, known=known, unknown=np.where(unknown)[0])
        for name, (model, x) in models.items()
    }  # fmt: skip


def judged(model: Any, x: Any, labels: Any, vectors: Any, **rows: Any) -> dict[str, float]:
    said = {name: answers(model, x[some], labels[some]) for name, some in rows.items() if name != "train"}
    held, known, strange = said["held_out"], said["known"], said["unknown"]
    curve = calibrated(list(zip(held["sure"], held["right"], held["label"], strict=True)))
    assert curve is not None
    for one in said.values():
        one["confidence"] = np.array([share_right(p, curve.intercept, curve.slope) for p in one["sure"]])
    found = abstention(
        held["confidence"],
        held["right"],
        np.arange(len(held["sure"])),
        AbstainSpec(risk=RISK, unknown=UNKNOWN),
    )
    plain = abstention(
        held["confidence"], held["right"], np.arange(len(held["sure"])), AbstainSpec(risk=RISK, unknown=0)
    )
    figures = {"accuracy": float(known["right"].mean())}
    for name, least in (("", found.chosen.least), ("ignoring the unknown: ", plain.chosen.least)):
        wrong, coverage, withheld = at(least, known, strange)
        figures |= {
            f"{name}wrong among answers": wrong,
            f"{name}known answered": coverage,
            f"{name}unknown withheld": withheld,
        }
    figures["shown"] = float(found.shown)
    best = max(
        (
            one
            for least in np.unique(known["confidence"])
            if (one := at(least, known, strange))[0] <= SHOWN_RISK
        ),
        key=lambda one: one[1],
        default=(0.0, 0.0, 1.0),
    )
    figures |= {"frontier: known answered": best[1], "frontier: unknown withheld": best[2]}
    wrong = known["confidence"][known["right"] == 0]
    figures["of the unknown as sure as the median wrong answer"] = float(
        (strange["confidence"] >= np.median(wrong)).mean()
    )
    for name in ("sure", "margin", "entropy"):
        figures[f"AUC: {name}"] = auc(known[name], strange[name])
    near = {name: (vectors[rows[name]] @ vectors[rows["train"]].T) for name in ("known", "unknown")}
    of_label = {
        name: np.where(labels[rows["train"]][None] == said[name]["label"][:, None], near[name], -1).max(
            axis=1
        )
        for name in near
    }
    figures["AUC: nearest question"] = auc(near["known"].max(axis=1), near["unknown"].max(axis=1))
    figures["AUC: nearest question of the label"] = auc(of_label["known"], of_label["unknown"])
    return figures


def answers(model: Any, x: Any, labels: Any) -> dict[str, Any]:
    shares = model.predict_proba(x)
    two = np.sort(shares, axis=1)[:, -2:]
    label = model.classes_[shares.argmax(axis=1)]
    return {
        "sure": two[:, 1],
        "margin": np.log(two[:, 1] + 1e-12) - np.log(two[:, 0] + 1e-12),
        "entropy": (shares * np.log(shares + 1e-12)).sum(axis=1),
        "label": label,
        "right": (label == labels).astype(float),
    }


def at(least: float, known: dict[str, Any], strange: dict[str, Any]) -> tuple[float, float, float]:
    """Return which share of the answers is wrong, of the known questions is answered, and of the unknown ones
    is not, if answers of at least this confidence are sent."""
    sent, let_through = known["confidence"] >= least, float((strange["confidence"] >= least).mean())
    wrong = (1 - UNKNOWN) * float((sent & (known["right"] == 0)).mean()) + UNKNOWN * let_through
    every = (1 - UNKNOWN) * float(sent.mean()) + UNKNOWN * let_through
    return wrong / max(every, 1e-9), float(sent.mean()), 1 - let_through


def auc(known: Any, strange: Any) -> float:
    truth = np.r_[np.ones(len(known)), np.zeros(len(strange))]
    return float(roc_auc_score(truth, np.r_[known, strange]))


if __name__ == "__main__":
    main()
