"""``mixture``, ``labels`` and ``length``: what moved from what it lately was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tunewheel_monitor.detectors import Detector
from tunewheel_monitor.detectors.labels import Labels
from tunewheel_monitor.detectors.length import Length, kind_of
from tunewheel_monitor.detectors.mixture import Mixture
from tunewheel_monitor.detectors.shares import KINDS as MOST_KINDS
from tunewheel_monitor.detectors.shares import STAYS

from .conftest import alarms, answer, opening, rating, windows

KINDS = 30
ZIPF = 1 / np.arange(1, KINDS + 1)
CASES: dict[str, tuple[Detector, Callable[[int], Any]]] = {
    "mixture": (Mixture(), lambda kind: answer(dataset_id="ds-1", cell=kind, novel=False)),
    "labels": (Labels(), lambda kind: answer(label=f"label-{kind}")),
    "length": (Length(), lambda kind: answer(completion_tokens=int(2 ** (kind / 2 + 1)))),
}


def drawn(rng: Any, count: int, shares: Any) -> list[int]:
    return rng.choice(KINDS, count, p=shares / shares.sum()).tolist()


def found(name: str, kinds: list[int], state: Any = None) -> list[Any]:
    detector, make = CASES[name]
    state = state if state is not None else detector.open(opening(dataset_id="ds-1"))
    return windows(detector, state, [make(kind) for kind in kinds])


@pytest.mark.parametrize("name", CASES)
def test_a_mixture_that_stays_is_no_shift_whatever_it_is(name: str):
    rng = np.random.default_rng(1)
    for _ in range(3):
        assert alarms(found(name, drawn(rng, 5_000, rng.permutation(ZIPF)))) == []


@pytest.mark.parametrize("name", CASES)
def test_a_mixture_of_which_half_moves_is_a_shift_until_it_came_to_stay(name: str):
    rng = np.random.default_rng(2)
    kinds = drawn(rng, 3_000, ZIPF) + drawn(rng, 100 * (STAYS + 20), ZIPF[::-1])
    seen = alarms(found(name, kinds))
    # the first three windows only make the standard
    assert 27 <= min(seen) < 33
    assert max(seen) < 30 + STAYS + 5


def test_a_mixture_that_changes_slowly_is_followed():
    rng = np.random.default_rng(3)
    kinds: list[int] = []
    for week in range(60):
        kinds += drawn(rng, 200, (1 - week / 60) * ZIPF + week / 60 * ZIPF[::-1])
    assert alarms(found("mixture", kinds)) == []


def test_the_standard_of_labels_is_handed_on_and_that_of_cells_is_not():
    rng = np.random.default_rng(4)
    for name, handed_on in (("labels", True), ("mixture", False)):
        detector, make = CASES[name]
        before = detector.open(opening(dataset_id="ds-1"))
        windows(detector, before, [make(kind) for kind in drawn(rng, 2_000, ZIPF)])
        state = detector.open(opening(dataset_id="ds-1", predecessor=before))
        assert bool(alarms(found(name, drawn(rng, 1_000, ZIPF[::-1]), state))) is handed_on


def test_it_says_what_moved():
    rng = np.random.default_rng(5)
    finding = found("labels", drawn(rng, 1_000, ZIPF) + drawn(rng, 600, ZIPF[::-1]))[-1]
    assert finding.drifted
    assert finding.action == "investigate"
    assert 0.3 < finding.effect < 0.8
    assert finding.reference.startswith("the last healthy windows")


def test_answers_that_a_client_changed_say_nothing():
    changed = answer(label="a", completion_tokens=9, overrides=("system_prompt",))
    for name in ("labels", "length"):
        detector, _ = CASES[name]
        assert windows(detector, detector.open(opening()), [changed] * 500) == []


def test_the_label_of_a_rated_answer_is_counted_with_the_answer_alone():
    detector, _ = CASES["labels"]
    assert windows(detector, detector.open(opening()), [rating(label="a")] * 500) == []


def test_lengths_are_half_octaves():
    lengths = [(16, "8"), (22, "8"), (23, "9"), (32, "10"), (0, "empty")]
    assert [kind_of(answer(completion_tokens=tokens)) for tokens, _ in lengths] == [k for _, k in lengths]
    assert kind_of(answer(completion_tokens=5, truncated=True)) == "truncated"


def test_a_window_of_any_length_has_so_many_kinds_at_most():
    detector, make = CASES["labels"]
    state = detector.open(opening())
    for kind in range(3 * MOST_KINDS):
        detector.see(state, make(kind))
    assert len(state["window"]) == MOST_KINDS + 1
    assert sum(state["window"].values()) == 3 * MOST_KINDS


@pytest.mark.parametrize(("share", "texts", "alarmed"), [(0.5, 1, True), (0.5, 5, True), (0.5, 2_000, False)])
def test_many_who_suddenly_ask_the_same_novel_text_move_the_mixture(share: float, texts: int, alarmed: bool):
    rng = np.random.default_rng(5)
    usual = [answer(dataset_id="ds-1", cell=kind, novel=False) for kind in drawn(rng, 5_000, ZIPF)]
    outage = [
        answer(dataset_id="ds-1", cell=7, novel=True, vector=f"text {rng.integers(texts)}")
        if rng.random() < share
        else usual[n]
        for n in range(1_500)
    ]
    detector = Mixture()
    state = detector.open(opening(dataset_id="ds-1"))
    assert alarms(windows(detector, state, usual)) == []
    assert bool(alarms(windows(detector, state, outage))) is alarmed


def test_greetings_that_the_dataset_lacks_are_part_of_the_usual_mixture():
    rng = np.random.default_rng(6)
    items = [
        answer(dataset_id="ds-1", cell=7, novel=True, vector=f"text {rng.integers(30)}")
        if rng.random() < 0.2
        else answer(dataset_id="ds-1", cell=kind, novel=False)
        for kind in drawn(rng, 10_000, ZIPF)
    ]
    detector = Mixture()
    assert alarms(windows(detector, detector.open(opening(dataset_id="ds-1")), items)) == []
