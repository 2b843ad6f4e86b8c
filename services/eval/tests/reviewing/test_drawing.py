"""Which prompts are drawn for people: every label, disagreements, the worst; the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from tunewheel_contracts.formats.generations import Generation
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.reviewing.drawing import DISAGREEMENT, WORST, draw
from tunewheel_eval.reviewing.preference import preferred

FREE = TaskSpec(system_prompt="s")
LABELLED = TaskSpec(
    system_prompt="s", label_field="kind", output_schema={"type": "object", "required": ["kind"]}
)


def said(number: int, role: str, output: str, *, expected: str = "yes") -> Generation:
    prompt = [{"role": "user", "content": f"question {number}"}]
    answers = {role: {"output": output, "complete": True}}
    values = {"example_id": f"ex-{number}", "answers": answers, "prompt": prompt, "expected": expected}
    return Generation.model_validate(values)


def labelled(kinds: Sequence[str], *, wrong: Sequence[int] = (), role: str = "champion") -> list[Generation]:
    """Rows whose other contestant is right, and whose candidate is, too, in other words, but for those of
    ``wrong``."""
    lines: list[Generation] = []
    for number, kind in enumerate(kinds):
        right = json.dumps({"kind": kind})
        own = json.dumps({"kind": "none" if number in wrong else kind, "why": "so"})
        lines += [
            said(number, "candidate", own, expected=right),
            said(number, role, right, expected=right),
        ]
    return lines


def test_every_label_is_there_in_proportion() -> None:
    kinds = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    drawn = draw(labelled(kinds), LABELLED, size=20, seed="s")
    strata = Counter(item.stratum for item in drawn.items)
    assert strata[WORST] == 5
    assert strata["a"] > strata["b"] > strata["c"] > 0
    assert sum(drawn.sizes.values()) == 100
    rare = draw(labelled(["a"] * 99 + ["b"]), LABELLED, size=20, seed="s")
    assert "b" in {json.loads(item.expected)["kind"] for item in rare.items}


def test_disagreements_have_a_half_and_the_worst_a_quarter() -> None:
    drawn = draw(labelled(["a"] * 100, wrong=range(30)), LABELLED, size=20, seed="s")
    assert Counter(item.stratum for item in drawn.items) == {"a": 5, DISAGREEMENT: 10, WORST: 5}
    assert drawn.sizes == {"a": 70, DISAGREEMENT: 25, WORST: 5}
    assert len({item.item_id for item in drawn.items}) == 20


def test_the_worst_are_those_of_either_model() -> None:
    lines = [
        said(n, role, "no" if n % 2 == (role == "base") and n < 10 else "yes yes")
        for n in range(40)
        for role in ("candidate", "base")
    ]
    worst = [item for item in draw(lines, FREE, size=40, seed="s").items if item.stratum == WORST]
    assert Counter(item.candidate == "no" for item in worst) == {True: 5, False: 5}


@pytest.mark.parametrize("task", [FREE, LABELLED])
def test_equal_answers_are_never_shown_and_are_counted(task: TaskSpec) -> None:
    lines = [
        said(n, role, f'{{"kind": "{role if n >= 70 else "x"}"}}')
        for n in range(100)
        for role in ("candidate", "base")
    ]
    drawn = draw(lines, task, size=60, seed="s")
    assert len(drawn.items) == 30
    assert all(item.candidate != item.other for item in drawn.items)
    assert (drawn.equal, sum(drawn.sizes.values())) == (70, 30)


def test_an_invalid_answer_disagrees_with_a_valid_one() -> None:
    right = '{"kind": 1}'
    lines = [said(0, "candidate", right, expected=right), said(0, "base", '{"kind": 1', expected=right)]
    for n in range(1, 9):  # of one kind, and worse
        lines += [said(n, role, f'{{"kind": 2, "{role}": 1}}') for role in ("candidate", "base")]
    drawn = draw(lines, LABELLED, size=8, seed="s")
    assert [item.example_id for item in drawn.items if item.stratum == DISAGREEMENT] == ["ex-0"]


def test_the_draw_depends_on_the_seed_and_on_nothing_else() -> None:
    lines = labelled(["a", "b"] * 50, wrong=range(40))
    first = draw(lines, LABELLED, size=20, seed="card-1")
    assert draw(list(reversed(lines)), LABELLED, size=20, seed="card-1") == first
    assert draw(lines, LABELLED, size=20, seed="card-2") != first


def test_all_are_taken_where_fewer_are_held_out_and_equal_ones_once() -> None:
    lines = [line for n in range(3) for line in (said(n, "candidate", "yes"), said(n, "base", "no"))]
    assert len(draw([*lines, *lines], FREE, size=50, seed="s").items) == 3
    twin = [one.model_copy(update={"example_id": "ex-9"}) for one in lines[:2]]
    assert len(draw([*lines, *twin], FREE, size=50, seed="s").items) == 3


def test_the_other_is_the_champion_and_the_base_where_there_is_none() -> None:
    rows = [said(0, "candidate", "own"), said(0, "base", "base's")]
    assert draw(rows, FREE, size=1, seed="s").items[0].other == "base's"
    assert (
        draw([*rows, said(0, "champion", "champion's")], FREE, size=1, seed="s").items[0].other
        == "champion's"
    )


def test_nothing_is_drawn_of_rows_that_only_one_side_has() -> None:
    assert draw([said(0, "candidate", "own")], FREE, size=5, seed="s").items == ()
    assert draw([], FREE, size=5, seed="s").items == ()


SCORES = {"better": 1.0, "same": 0.5, "worse": 0.0}


def reviewed(
    seed: int, *, better: float, rows: int = 200, size: int = 60
) -> tuple[float, float, float, float]:
    """Return the true preference over all rows of one draw, and what a reviewer who is always right makes of
    the drawn ones, with its interval. The models' labels are right on .75 of the rows, the candidate's on
    ``better`` more; where both are right, half of the answers are in the same words."""
    rng = np.random.default_rng(seed)
    lines: list[Generation] = []
    truth: dict[str, float] = {}
    for n in range(rows):
        shared, more = rng.random() < 0.6, rng.random() < better
        own, other = (shared or bool(rng.random() < 0.375) for _ in range(2))
        own = own or more
        kind = "abc"[int(rng.integers(3))]
        words = [f"{one} {int(rng.integers(2))}" for one in ("so", "so")]
        texts = [
            json.dumps({"kind": kind if right else "none", "why": word})
            for right, word in zip((own, other), words, strict=True)
        ]
        expected = json.dumps({"kind": kind, "why": "so"})
        lines += [
            said(n, role, text, expected=expected)
            for role, text in zip(("candidate", "champion"), texts, strict=True)
        ]
        truth[f"ex-{n}"] = 0.5 + (own - other) / 2
    drawn = draw(lines, LABELLED, size=60, seed=str(seed))
    strata: dict[str, list[float]] = defaultdict(list)
    for item in drawn.items:
        strata[item.stratum].append(truth[item.example_id])
    found = [(drawn.sizes[name], scores) for name, scores in strata.items()]
    return float(np.mean(list(truth.values()))), *preferred(found, equal=drawn.equal)


def test_rows_as_bad_as_the_worst_are_drawn_as_often_as_others_that_differ() -> None:
    """Thirty wrong candidates, thirty wrong champions, sixty rows where both are right. Wrong candidates say
    a word more: they score worst, and ten of them are the stratum of the worst."""
    share = 0.0
    wrong = [line for n in range(100, 130) for line in _wrong_champion(n)]
    for seed in range(40):
        lines = [*labelled(["a"] * 90, wrong=range(30)), *wrong]
        drawn = draw(lines, LABELLED, size=40, seed=str(seed))
        apart = [item for item in drawn.items if item.stratum == DISAGREEMENT]
        share += np.mean(["none" in item.candidate for item in apart]) / 40
    assert share == pytest.approx(20 / 50, abs=0.04)


def _wrong_champion(number: int) -> list[Generation]:
    right, wrong = json.dumps({"kind": "a"}), json.dumps({"kind": "none"})
    return [
        said(number, "candidate", right, expected=right),
        said(number, "champion", wrong, expected=right),
    ]


@pytest.mark.parametrize(("better", "at_least", "at_most"), [(0.0, 0.48, 0.52), (0.4, 0.53, 0.57)])
def test_the_preference_on_the_drawn_prompts_is_that_on_all(better, at_least, at_most) -> None:
    """Coarse, for a gross error. Candidates of .0, +.05 and +.10 have a
    preference of .500, .525 and .550."""
    found = np.array([reviewed(seed, better=better) for seed in range(24)])
    assert abs(float(np.mean(found[:, 1] - found[:, 0]))) < 0.015
    assert at_least <= float(np.mean(found[:, 1])) <= at_most
    assert np.mean((found[:, 2] <= found[:, 0]) & (found[:, 0] <= found[:, 3])) >= 0.9
