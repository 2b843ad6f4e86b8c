"""What the input detector can see: false alarms and power on banking77's real customer queries.

Some categories are held back as "new"; the reference and the rest of the window come from the others, drawn
without overlap. A shift of s replaces that share of the window by new categories. Beside it: the time to
embed texts and to judge one window.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from report import write_report
from tunewheel_monitor.drift import InputReference, input_drift
from tunewheel_runtime.static_embedding import StaticEmbedder, Vectors

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "banking77"
P_VALUE = 0.01
REFERENCES = (300, 1_000)
WINDOWS = (60, 100)
NEW_CATEGORIES = (2, 8)
SHIFTS = (0.0, 0.05, 0.1, 0.3, 1.0)
ROUNDS = 100


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing: the benchmark needs banking77 there")
    with (DATA / "train.csv").open(encoding="utf-8") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    embedder = StaticEmbedder()
    embedder.embed(["warm up"])
    started = time.perf_counter()
    vectors = embedder.embed([text for text, _ in rows])
    per_second = len(rows) / (time.perf_counter() - started)
    categories = np.array([category for _, category in rows])
    rng = np.random.default_rng(17)
    found: dict[str, dict[str, Any]] = {}
    for reference in REFERENCES:
        for window in WINDOWS:
            for new in NEW_CATEGORIES:
                name = f"reference {reference}, window {window}, {new} new categories"
                found[name] = power(vectors, categories, reference, window, new, rng)
                print(name, found[name], file=sys.stderr, flush=True)
    write_report(
        "drift",
        packages=("numpy", "scipy", "tokenizers"),
        contenders=found,
        ratios={},
        texts_embedded_per_second=round(per_second),
        p_value=P_VALUE,
        rounds=ROUNDS,
    )


def power(
    vectors: Vectors, categories: Any, reference: int, window: int, new: int, rng: np.random.Generator
) -> dict[str, float]:
    """Return, by shift, the share of windows that are called drifted, and the seconds of one judgement."""
    result: dict[str, float] = {}
    names = np.unique(categories)
    taken = 0.0
    for shift in SHIFTS:
        alarms = 0
        for _ in range(ROUNDS):
            is_new = np.isin(categories, rng.choice(names, new, replace=False))
            old, fresh = rng.permutation(np.where(~is_new)[0]), rng.permutation(np.where(is_new)[0])
            count = round(window * shift)
            chosen = np.concatenate([old[reference : reference + window - count], fresh[:count]])
            started = time.perf_counter()
            finding = input_drift(
                InputReference(vectors[old[:reference]]),
                vectors[chosen],
                p_value=P_VALUE,
                seed=int(rng.integers(2**31)),
            )
            taken += time.perf_counter() - started
            alarms += finding.drifted
        result[f"{shift:.0%} new"] = alarms / ROUNDS
    return result | {"seconds": round(taken / ROUNDS / len(SHIFTS), 4)}


if __name__ == "__main__":
    main()
