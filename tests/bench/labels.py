"""What the prompts teach that an alarm asks people about.

Questions are banking77's; eight intents are new and have a fifth of the traffic, and one prompt in twenty is
the same canned text. The monitor's detector raises its alarm, and its request for labels grows window by
window. Of the first prompts asked, the bench counts those that are different questions of new intents, and
the intents that they cover. People's answers are banking77's labels. A linear model on the sentence encoder's
vectors stands for the training: it is fitted to the reference and the answers, and asked other questions of
the new intents. By few answers it learns more than a linear model on TF-IDF, as a fine-tuned model does.

    make bench NAME=labels ARGS="--draws 20 --encoded 0.3"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
from alarms import DRIFT
from questions import DATA, START, WINDOW, Questions, Scene, encode, further, load, scene
from report import write_report
from sklearn.svm import LinearSVC
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_monitor.alarms import weigh
from tunewheel_monitor.detectors import WEIGHTS, Opening
from tunewheel_monitor.detectors.novelty import Novelty
from tunewheel_monitor.state import ProjectState, Version

SIZE, NEW, SHIFT, CANNED = 1_000, 8, 0.2, 0.05
GREETING = "Hello, is anybody there?"
MOST = 4_000
FIRST, TIMES = 40, 5


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--encoded", type=float, default=1.0, help="share of the prompts that is encoded")
    given = parser.parse_args()
    if not (DATA / "banking77").is_dir():
        sys.exit(f"{DATA / 'banking77'} is missing: the benchmark needs it there")
    questions, _ = encode(load()[0])
    drawn: list[dict[str, float]] = []
    for draw in range(given.draws):
        drawn.append(asked(questions, draw, given.encoded))
        print(drawn[-1], flush=True)
    alarmed = [one for one in drawn if "precision" in one]
    figures = {name: [one[name] for one in alarmed] for name in alarmed[0]}
    told = {
        name: {"mean": round(float(np.mean(some)), 3), "least": min(some)} for name, some in figures.items()
    }
    write_report(
        "labels", packages=("numpy", "scikit-learn"), contenders=told, ratios={}, draws=given.draws,
        encoded=given.encoded, alarmed=len(alarmed), intervals=intervals(figures),
    )  # fmt: skip


def asked(questions: Questions, draw: int, share: float) -> dict[str, float]:
    """Return the figures of one draw; without ``precision`` if no alarm asked for ``FIRST`` prompts."""
    rng = np.random.default_rng((31, SIZE, draw))
    drawn = scene(questions, SIZE, (NEW,), rng)
    fresh = rng.permutation(drawn.new[NEW])
    traffic, held_out = fresh[: len(fresh) // 2], fresh[len(fresh) // 2 :]
    is_new, is_canned = rng.random(MOST) < SHIFT, rng.random(MOST) < CANNED
    known = np.resize(rng.permutation(drawn.known), MOST)
    stream = np.where(is_new, np.resize(traffic, MOST), known)
    is_encoded = rng.random(MOST) < share
    (greeting,) = further(drawn, [GREETING])
    items = [
        (greeting if is_canned[n] else drawn.items[place]).model_copy(
            update={"completion_id": f"q-{n}"} | ({} if is_encoded[n] else {"encoded": None})
        )
        for n, place in enumerate(stream)
    ]
    names, prompts = requested(drawn, items)
    if len(names) < FIRST:
        return {"prompts": prompts}
    places = [-1 if is_canned[int(name[2:])] else int(stream[int(name[2:])]) for name in names[:FIRST]]
    new = set(places) & set(traffic.tolist())
    vectors, intents, rows = questions.encoded, questions.intents, drawn.rows
    assert vectors is not None

    def accuracy(answered: Sequence[int]) -> float:
        taught, held = [*drawn.chosen, *rows[list(answered)]], rows[held_out]
        model = LinearSVC(random_state=0).fit(vectors[taught], intents[taught])
        return float((model.predict(vectors[held]) == intents[held]).mean())

    some = accuracy([place for place in dict.fromkeys(places) if place >= 0])
    drawn_at_random = list(dict.fromkeys(traffic.tolist()))
    as_many, most = (accuracy(drawn_at_random[:count]) for count in (FIRST, FIRST * TIMES))
    return {
        "prompts": prompts, "precision": len(new) / FIRST, "intents": len(set(intents[rows[list(new)]])),
        "canned": places.count(-1), "accuracy": round(some, 3), "accuracy of five times": round(most, 3),
        "accuracy of as many at random": round(as_many, 3),
        "share": round(some / most, 3),
    }  # fmt: skip


def requested(drawn: Scene, items: Sequence[InferenceScored]) -> tuple[list[str], int]:
    """Return the prompts that an alarm asks about, in order, and how many prompts came until there were
    ``FIRST``."""
    detector, state = Novelty(), ProjectState()
    opening = Opening(drift=DRIFT, weights=WEIGHTS, dataset_id="ds-1", coverage=drawn.coverage.facts)
    state.version = Version("m", "ds-1", 1, {detector.name: detector.open(opening)})
    assert drawn.encoding is not None
    by_encoder = replace(opening, coverage=drawn.encoding.coverage.facts)
    detector.encode(state.version.detectors[detector.name], drawn.encoding.encoder, by_encoder)
    names: list[str] = []
    for n, item in enumerate(items, 1):
        state.note_place(item.completion_id, ["completion", 0, n])
        detector.see(state.version.detectors[detector.name], item)
        state.version.answers.take(item.completion_id, START + timedelta(seconds=n))
        if n % WINDOW:
            continue
        found = detector.look(state.version.detectors[detector.name])
        window = state.version.answers.closed()
        state.version.answers = state.version.answers.next()
        told: dict[str, Any] = {"project": "desk", "window": window, "drift": DRIFT, "at": window.ended_at}
        for said in weigh(state, state.version, detector, found, **told):
            if isinstance(said.data, LabelsRequested):
                names = list(said.data.completion_ids)
        if len(names) >= FIRST:
            break
    return names, n


def intervals(figures: dict[str, list[float]]) -> dict[str, list[float]]:
    """Return for each mean over the draws its 95 % interval, by the bootstrap."""
    rng, found = np.random.default_rng(7), dict[str, list[float]]()
    for name, some in figures.items():
        means = rng.choice(some, (2_000, len(some))).mean(axis=1)
        found[name] = [round(float(end), 3) for end in np.quantile(means, (0.025, 0.975))]
    return found


if __name__ == "__main__":
    main()
