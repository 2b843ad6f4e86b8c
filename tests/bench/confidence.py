"""How well the accuracy of production is estimated without labels, and how often its detector cries wolf.

Questions are banking77's. Two classifiers stand for a tuned model, as none runs here: logistic regression on
static vectors, which is not sure enough, and naive Bayes on words, which is far too sure, as tuned models
are. Eval's calibration is fitted to held-out rows of the dataset; then the monitor's detector sees other
questions of a known mixture, and of new intents, whose every label is wrong. Each number of held-out rows has
draws of its own.

    make bench NAME=confidence ARGS="--draws 10"
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import numpy as np
from alarms import DRIFT
from questions import DATA, START, Questions, Rng, load, popularity
from report import write_report
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_embedding.static import unit_length
from tunewheel_eval.calibration import calibrated
from tunewheel_monitor.detectors import WEIGHTS, Opening
from tunewheel_monitor.detectors.confidence import LATELY, Confidence

SAMPLED = 5
"""Measured answers of a window: one in twenty of a hundred."""
CALM = 500
"""Measured answers of even traffic before a change."""
CHANGED = 600
NEW = 8
HOLDOUTS = (150, 300, 1_000)
Answers = dict[str, Any]
"""By field, (prompts,): ``sure``, ``right``, ``label``, ``intent``."""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 4_000])
    parser.add_argument(
        "--windows", type=int, default=2_000, help="of known traffic, for each draw and model"
    )
    given = parser.parse_args()
    if not (DATA / "banking77").is_dir():
        sys.exit(f"{DATA / 'banking77'} is missing: the benchmark needs it there")
    warnings.filterwarnings("ignore")  # the classifiers need not converge
    questions, _ = load()
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    false: dict[str, list[int]] = defaultdict(list)
    for draw in range(given.draws):
        for size in given.sizes:
            for model, answers in answered(questions, size, np.random.default_rng((31, draw, size))).items():
                rng = np.random.default_rng((32, draw, size, len(model)))
                for rows in HOLDOUTS:
                    for kind, mixed in KINDS.items():
                        found[f"{kind}, {rows} held-out rows"].append(estimated(answers, rows, mixed, rng))
                for kind in ("even", "Zipf, turning over", "bursts"):
                    false[kind].append(false_alarms(answers, KINDS[kind], given.windows, rng))
    told = {kind: summary(cases) for kind, cases in found.items()}
    for kind, figures in told.items():
        print(f"{kind}: {figures}")
    calm = {
        kind: {"alarms": sum(counts), "windows": len(counts) * given.windows}
        for kind, counts in false.items()
    }
    print(calm)
    write_report("confidence", packages=("numpy", "scikit-learn"), contenders=told, ratios={},
                 false_alarms=calm, draws=given.draws)  # fmt: skip


def answered(questions: Questions, size: int, rng: Rng) -> dict[str, dict[str, Answers]]:
    """Return each model's answers to questions of its dataset that are held out, to known ones of
    production, and to those of new intents."""
    banking = np.unique(questions.intents[~questions.hotels])
    is_new = np.isin(questions.intents, rng.choice(banking, NEW, replace=False))
    known = ~is_new & ~questions.hotels
    pool = rng.permutation(np.where(known & ~questions.held_out)[0])
    train, held_out, rest = np.split(pool, [size, size + max(HOLDOUTS)])
    parts = {
        "held out": held_out,
        "known": np.concatenate([np.where(known & questions.held_out)[0], rest]),
        "new": np.where(is_new)[0],
    }
    labels, units = questions.intents[train], unit_length(questions.vectors)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\w+")
    words.fit([questions.texts[n] for n in train])
    counted = words.transform(questions.texts) * 6
    models = {
        "logistic regression": (LogisticRegression(C=20, max_iter=60), units),
        "naive Bayes": (MultinomialNB(alpha=0.05), counted),
    }
    return {
        name: {
            part: _said(model, inputs[rows], questions.intents[rows]) for part, rows in parts.items()
        }
        for name, (model, inputs) in ((n, (m.fit(x[train], labels), x)) for n, (m, x) in models.items())
    }  # fmt: skip


def _said(model: Any, inputs: Any, intents: Any) -> Answers:
    shares = model.predict_proba(inputs)
    label = model.classes_[shares.argmax(axis=1)]
    return {"sure": shares.max(axis=1), "right": label == intents, "label": label, "intent": intents}


Mixed = Callable[[dict[str, Answers], int, Rng], Answers]


def _drawn(known: Answers, shares: Any, count: int, rng: Rng) -> Answers:
    kinds = np.unique(known["intent"])
    by_intent = [np.where(known["intent"] == kind)[0] for kind in kinds]
    rows = [int(rng.choice(by_intent[kind])) for kind in rng.choice(len(kinds), count, p=shares)]
    return {name: values[rows] for name, values in known.items()}


def even(answers: dict[str, Answers], count: int, rng: Rng) -> Answers:
    rows = rng.integers(len(answers["known"]["sure"]), size=count)
    return {name: values[rows] for name, values in answers["known"].items()}


def zipf(answers: dict[str, Answers], count: int, rng: Rng) -> Answers:
    known = answers["known"]
    return _drawn(known, popularity(len(np.unique(known["intent"])), rng), count, rng)


def turning(answers: dict[str, Answers], count: int, rng: Rng) -> Answers:
    """Popularity is another every 200 windows."""
    parts = [zipf(answers, min(200 * SAMPLED, count - at), rng) for at in range(0, count, 200 * SAMPLED)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bursts(answers: dict[str, Answers], count: int, rng: Rng) -> Answers:
    """Half of the questions are of one intent, of another every 60 windows."""
    known, step, parts = answers["known"], 60 * SAMPLED, []
    kinds = len(np.unique(known["intent"]))
    for at in range(0, count, step):
        shares = np.full(kinds, 0.5 / kinds)
        shares[rng.integers(kinds)] += 0.5
        parts.append(_drawn(known, shares, min(step, count - at), rng))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def hard(answers: dict[str, Answers], count: int, rng: Rng) -> Answers:
    """Half of the questions are of the ten intents that the model knows worst."""
    known = answers["known"]
    kinds = np.unique(known["intent"])
    accuracy = np.array([known["right"][known["intent"] == kind].mean() for kind in kinds])
    shares = np.full(len(kinds), 0.5 / len(kinds))
    shares[np.argsort(accuracy)[:10]] += 0.05
    return _drawn(known, shares, count, rng)


def renewed(share: float) -> Mixed:
    def mixed(answers: dict[str, Answers], count: int, rng: Rng) -> Answers:
        known, new = even(answers, count, rng), answers["new"]
        rows, fresh = rng.integers(len(new["sure"]), size=count), rng.random(count) < share
        return {name: np.where(fresh, new[name][rows], values) for name, values in known.items()}

    return mixed


KINDS: dict[str, Mixed] = {
    "even": even,
    "Zipf": zipf,
    "Zipf, turning over": turning,
    "bursts": bursts,
    "the hardest intents": hard,
    "a fifth new intents": renewed(0.2),
    "half new intents": renewed(0.5),
}


def estimated(
    answers: dict[str, Answers], rows: int, mixed: Mixed, rng: Rng
) -> tuple[float, float, bool, bool, float, float]:
    """Return the estimate, the truth, whether the interval holds it, whether there was an alarm, the accuracy
    on the held-out rows, and half the interval's width."""
    held_out = answers["held out"]
    chosen = rng.choice(len(held_out["sure"]), rows, replace=False)
    detector, state = begun(held_out, chosen)
    run(detector, state, even(answers, CALM, rng))
    changed = mixed(answers, CHANGED, rng)
    findings = run(detector, state, changed)
    last, lately = findings[-1], round(LATELY)
    truth = float(changed["right"][-lately:].mean())
    alarmed = any(one.drifted for one in findings)
    return (
        last.statistic, truth, last.low <= truth <= last.high, alarmed,
        float(held_out["right"][chosen].mean()), (last.high - last.low) / 2,
    )  # fmt: skip


def begun(held_out: Answers, chosen: Any) -> tuple[Confidence, Any]:
    measured = [
        (float(held_out["sure"][n]), float(held_out["right"][n]), str(held_out["label"][n])) for n in chosen
    ]
    detector = Confidence()
    return detector, detector.open(Opening(drift=DRIFT, calibration=calibrated(measured), weights=WEIGHTS))


def run(detector: Confidence, state: Any, some: Answers) -> list[Any]:
    found: list[Any] = []
    for n in range(len(some["sure"])):
        item = InferenceScored.model_construct(
            project="desk", completion_id=f"c-{n}", scored=f"c-{n}", model_id="m", role=RouteRole.PRODUCTION,
            at=START, label=str(some["label"][n]), measures={"confidence": float(some["sure"][n])},
        )  # fmt: skip
        detector.see(state, item)
        if n % SAMPLED == SAMPLED - 1 and (finding := detector.look(state)) is not None:
            found.append(finding)
    return found


def false_alarms(answers: dict[str, Answers], mixed: Mixed, windows: int, rng: Rng) -> int:
    """Return how many alarms began in known traffic."""
    held_out = answers["held out"]
    detector, state = begun(held_out, rng.choice(len(held_out["sure"]), 300, replace=False))
    drifted = [False, *(one.drifted for one in run(detector, state, mixed(answers, windows * SAMPLED, rng)))]
    return sum(now and not before for before, now in pairwise(drifted))


def summary(cases: list[tuple[float, ...]]) -> dict[str, float]:
    estimate, truth, held, alarmed, held_out, half = np.array(cases, dtype=float).T
    off = estimate - truth
    return {
        "accuracy": round(float(truth.mean()), 3),
        "mean error": round(float(off.mean()), 3),
        "root mean square": round(float(np.sqrt((off**2).mean())), 3),
        "within 3 points": round(float((abs(off) <= 0.03).mean()), 2),
        "in its interval": round(float(held.mean()), 2),
        "half the interval": round(float(half.mean()), 3),
        "by the held-out rows alone": round(float(np.sqrt(((held_out - truth) ** 2).mean())), 3),
        "alarmed": round(float(alarmed.mean()), 2),
        "draws": len(cases),
    }


if __name__ == "__main__":
    main()
