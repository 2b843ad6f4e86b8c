"""The detectors: how often they cry wolf, and what they see. All draws have fixed seeds."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunewheel_monitor import drift
from tunewheel_monitor.drift import (
    MOST_TEXTS,
    InputReference,
    farthest,
    input_drift,
    mmd_permutation,
    permutations_for,
    rate_drift,
    rbf_kernel,
)

REPOSITORY = Path(__file__).resolve().parents[3]
P_VALUE = 0.01


@pytest.fixture(scope="module")
def banking(embedder: Any) -> tuple[Any, Any]:
    """Embeddings and categories of banking77's real customer queries."""
    path = REPOSITORY.parent / "shared" / "data" / "banking77" / "test.csv"
    if not path.is_file():
        pytest.skip(f"{path} is missing: it is not part of the repository")
    with path.open(encoding="utf-8") as file:
        rows = [(row["text"], row["category"]) for row in csv.DictReader(file)]
    return embedder.embed([text for text, _ in rows]), np.array([category for _, category in rows])


def share_of_alarms(banking: tuple[Any, Any], *, new_share: float, rounds: int) -> float:
    vectors, categories = banking
    rng = np.random.default_rng(3)
    alarms = 0
    for seed in range(rounds):
        is_new = np.isin(categories, rng.choice(np.unique(categories), 2, replace=False))
        old, new = rng.permutation(np.where(~is_new)[0]), rng.permutation(np.where(is_new)[0])
        count = round(60 * new_share)
        window = np.concatenate([old[300 : 360 - count], new[:count]])
        reference = InputReference(vectors[old[:300]])
        alarms += input_drift(reference, vectors[window], p_value=P_VALUE, seed=seed).drifted
    return alarms / rounds


def test_windows_of_the_same_distribution_rarely_alarm(banking: tuple[Any, Any]):
    # 30 windows at 1 %: more than 3 alarms have a probability below 0.1 %.
    assert share_of_alarms(banking, new_share=0.0, rounds=30) <= 3 / 30


def test_a_window_of_any_length_takes_bounded_memory(monkeypatch: pytest.MonkeyPatch):
    """The whole of it would be a kernel of 3 GB."""
    compared: list[int] = []

    def kernel(units: Any) -> Any:
        compared.append(len(units))
        return rbf_kernel(units)

    monkeypatch.setattr(drift, "rbf_kernel", kernel)
    rng = np.random.default_rng(1)
    reference, window = rng.normal(size=(50, 16)), rng.normal(size=(30_000, 16))
    window[15_000:] += 3.0
    assert input_drift(InputReference(reference), window, p_value=P_VALUE, seed=1).drifted
    assert compared == [50 + MOST_TEXTS]


def test_a_window_half_of_new_topics_is_seen(banking: tuple[Any, Any]):
    assert share_of_alarms(banking, new_share=0.5, rounds=20) >= 0.9


def helpdesk(name: str) -> list[str]:
    lines = (REPOSITORY / "examples" / "helpdesk" / name).read_text(encoding="utf-8").splitlines()
    tickets = [json.loads(line) for line in lines if line.strip()]
    return ["\n\n".join(filter(None, (t.get("subject"), t["body"]))) for t in tickets]


def test_the_second_wave_of_the_example_is_seen_and_its_first_is_not(embedder: Any):
    first, second = (embedder.embed(helpdesk(n)) for n in ("tickets.jsonl", "second_wave.jsonl"))
    shuffled = np.random.default_rng(4).permutation(len(first))
    reference = InputReference(first[shuffled[:-48]])
    new = input_drift(reference, second[:48], p_value=P_VALUE, seed=1)
    old = input_drift(reference, first[shuffled[-48:]], p_value=P_VALUE, seed=1)
    assert new.p_value < 0.005
    assert old.p_value > P_VALUE


def test_the_same_window_gives_the_same_p_value(banking: tuple[Any, Any]):
    vectors, _ = banking
    reference = InputReference(vectors[:200])
    found = [input_drift(reference, vectors[200:240], p_value=P_VALUE, seed=5) for _ in range(2)]
    assert found[0] == found[1]
    again = InputReference(vectors[:200])
    assert input_drift(again, vectors[200:240], p_value=P_VALUE, seed=5) == found[0]


def test_identical_texts_do_not_break_the_kernel():
    same = np.tile(np.eye(4)[0], (20, 1))
    squared, p = mmd_permutation(same, same[:10], permutations=99, seed=1)
    assert (squared, p) == (pytest.approx(0), 1.0)


def test_mmd_equals_its_definition():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(12, 3)), rng.normal(loc=1.0, size=(7, 3))
    both = np.vstack([x, y])
    squares = ((both[:, None] - both[None]) ** 2).sum(-1)
    width = 0.3 * np.median(squares[np.triu_indices(19, 1)])
    kernel = np.exp(-squares / width) - np.eye(19)
    expected = kernel[:12, :12].sum() / (12 * 11) + kernel[12:, 12:].sum() / (7 * 6)
    expected -= 2 * kernel[:12, 12:].mean()
    assert mmd_permutation(x, y, permutations=9, seed=1)[0] == pytest.approx(expected, abs=1e-5)


def test_permutations_resolve_the_threshold():
    assert permutations_for(0.005) == 1_000
    assert permutations_for(0.0005) > 1 / 0.0005
    assert permutations_for(1e-9) == 9_999


@pytest.mark.parametrize(
    ("window", "reference", "drifted"),
    [((12, 60), (3, 100), True), ((3, 60), (5, 100), False), ((0, 60), (30, 100), False)],
)
def test_only_a_rise_of_the_rate_is_drift(window: Any, reference: Any, drifted: bool):
    finding = rate_drift("rate", window=window, reference=reference, p_value=P_VALUE)
    assert finding.drifted is drifted


def test_a_rate_rises_by_chance_no_more_often_than_it_may():
    rng = np.random.default_rng(2)
    draws = rng.binomial([60, 200], 0.1, size=(400, 2))
    alarms = [
        rate_drift("rate", window=(int(w), 60), reference=(int(r), 200), p_value=0.05).drifted
        for w, r in draws
    ]
    assert sum(alarms) <= 400 * 0.05


def test_a_rate_of_nothing_is_no_drift():
    assert rate_drift("rate", window=(0, 0), reference=(1, 2), p_value=P_VALUE).p_value == 1.0


def test_the_farthest_come_first():
    assert farthest([0.1, 0.9, 0.5, 0.9], 3) == [1, 3, 2]


def test_the_monitor_runs_without_torch() -> None:
    code = (
        "import sys; from tunewheel_monitor.main import make_app; "
        "assert not {'torch', 'transformers'} & set(sys.modules), 'torch is loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
