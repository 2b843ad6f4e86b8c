"""Which prompts are drawn for people: every label, disagreements, the worst; the same for the same seed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.generations import Generation
from tunewheel_eval.reviewing.drawing import DISAGREEMENT, WORST, draw

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
    """Rows whose other contestant is right, and whose candidate is, too, but for those of ``wrong``."""
    lines: list[Generation] = []
    for number, kind in enumerate(kinds):
        right = json.dumps({"kind": kind})
        own = json.dumps({"kind": "none"}) if number in wrong else right
        lines += [
            said(number, "candidate", own, expected=right),
            said(number, role, right, expected=right),
        ]
    return lines


def test_every_label_is_there_in_proportion() -> None:
    kinds = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    drawn = draw(labelled(kinds), LABELLED, size=20, seed="s")
    assert Counter(item.stratum for item in drawn) == {"a": 12, "b": 6, "c": 2}
    rare = draw(labelled(["a"] * 99 + ["b"]), LABELLED, size=20, seed="s")
    assert Counter(item.stratum for item in rare)["b"] == 1


def test_disagreements_and_the_worst_have_a_quarter_each() -> None:
    drawn = draw(labelled(["a"] * 100, wrong=range(30)), LABELLED, size=20, seed="s")
    assert Counter(item.stratum for item in drawn) == {"a": 10, DISAGREEMENT: 5, WORST: 5}
    assert all(item.candidate != item.other for item in drawn if item.stratum in (DISAGREEMENT, WORST))
    assert len({item.item_id for item in drawn}) == 20


def test_an_invalid_answer_disagrees_with_a_valid_one() -> None:
    lines = [
        said(0, "candidate", '{"kind": 1}'), said(0, "base", '{"kind": 1'),
        *[line for n in range(1, 9) for line in (said(n, "candidate", "{}"), said(n, "base", "{}"))],
    ]  # fmt: skip
    drawn = draw(lines, LABELLED, size=8, seed="s")
    assert [item.example_id for item in drawn if item.stratum == DISAGREEMENT] == ["ex-0"]


def test_the_draw_depends_on_the_seed_and_on_nothing_else() -> None:
    lines = labelled(["a", "b"] * 50, wrong=range(40))
    first = draw(lines, LABELLED, size=20, seed="card-1")
    assert draw(list(reversed(lines)), LABELLED, size=20, seed="card-1") == first
    assert draw(lines, LABELLED, size=20, seed="card-2") != first


def test_all_are_taken_where_fewer_are_held_out_and_equal_ones_once() -> None:
    lines = [line for n in range(3) for line in (said(n, "candidate", "yes"), said(n, "base", "no"))]
    assert len(draw([*lines, *lines], FREE, size=50, seed="s")) == 3
    twin = [one.model_copy(update={"example_id": "ex-9"}) for one in lines[:2]]
    assert len(draw([*lines, *twin], FREE, size=50, seed="s")) == 3


def test_the_other_is_the_champion_and_the_base_where_there_is_none() -> None:
    rows = [said(0, "candidate", "own"), said(0, "base", "base's")]
    assert draw(rows, FREE, size=1, seed="s")[0].other == "base's"
    assert draw([*rows, said(0, "champion", "champion's")], FREE, size=1, seed="s")[0].other == "champion's"


def test_nothing_is_drawn_of_rows_that_only_one_side_has() -> None:
    assert draw([said(0, "candidate", "own")], FREE, size=5, seed="s") == ()
    assert draw([], FREE, size=5, seed="s") == ()


def test_a_plain_text_that_is_a_label_is_drawn_by_it() -> None:
    rules = [{"rule": "allowed_values", "values": ["a", "b"]}]
    task = TaskSpec.model_validate({"system_prompt": "s", "output_rules": rules})
    kinds = ["a"] * 30 + ["b"] * 10
    lines = [
        said(n, role, kind, expected=kind) for n, kind in enumerate(kinds) for role in ("candidate", "base")
    ]
    assert Counter(item.stratum for item in draw(lines, task, size=8, seed="s")) == {"a": 6, "b": 2}
