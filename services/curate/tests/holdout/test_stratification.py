from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_curate.holdout.stratification import (
    AT_MOST,
    Side,
    Unit,
    choose_holdout,
    choose_of_request,
    goals_of,
)

LABELS = ("bell", "horn", "lock", "")
FRACTIONS = st.sampled_from([0.05, 0.1, 0.15, 0.2, 0.5])
COUNTS = st.dictionaries(st.sampled_from(LABELS), st.integers(1, 4), min_size=1)


def named(counts: Sequence[dict[str, int]], start: int = 0) -> list[Unit]:
    return [Unit(f"unit-{number}", labels) for number, labels in enumerate(counts, start)]


def total(units: Sequence[Unit]) -> Counter[str]:
    return sum((Counter(unit.labels) for unit in units), Counter[str]())


def of(units: Sequence[Unit], names: frozenset[str]) -> list[Unit]:
    return [unit for unit in units if unit.name in names]


def settled(units: Sequence[Unit], held: frozenset[str]) -> list[Unit]:
    return [replace(u, side=Side.HOLDOUT if u.name in held else Side.TRAIN) for u in units]


@given(totals=st.dictionaries(st.sampled_from(LABELS), st.integers(1, 500), min_size=1), fraction=FRACTIONS)
def test_goals_are_the_exact_parts_rounded_and_add_up(totals: dict[str, int], fraction: float) -> None:
    goals = goals_of(totals, fraction)
    assert sum(goals.values()) == round(sum(totals.values()) * fraction)
    assert all(abs(goals[label] - fraction * count) <= 1 for label, count in totals.items())


@given(
    sizes=st.dictionaries(st.sampled_from(LABELS), st.lists(st.integers(1, 3), min_size=30), min_size=1),
    fraction=st.sampled_from([0.1, 0.15, 0.2]),
)
def test_units_of_one_label_meet_its_goal_within_half_the_largest(
    sizes: dict[str, list[int]], fraction: float
) -> None:
    units = named([{label: size} for label, chosen in sizes.items() for size in chosen])
    held = total(of(units, choose_holdout(units, fraction=fraction)))
    for label, goal in goals_of(total(units), fraction).items():
        assert abs(held[label] - goal) <= max(sizes[label]) / 2


@given(st.lists(COUNTS, min_size=2, max_size=40), FRACTIONS)
def test_units_are_whole_labels_stay_in_training_and_the_order_does_not_matter(
    counts: list[dict[str, int]], fraction: float
) -> None:
    units = named(counts)
    names = choose_holdout(units, fraction=fraction)
    held, everything = total(of(units, names)), total(units)
    assert held.total() <= max(1.0, AT_MOST * fraction * everything.total()) + sum(
        max(unit.labels.get(label, 0) for unit in units) / 2 for label in everything
    ), "beyond what representing labels may take and what whole units cost"
    assert all(held[label] < count for label, count in everything.items())
    turned = [replace(unit, labels=dict(reversed(unit.labels.items()))) for unit in reversed(units)]
    assert choose_holdout(turned, fraction=fraction) == names


@given(
    first=st.lists(COUNTS, min_size=4, max_size=30), more=st.lists(COUNTS, max_size=30), fraction=FRACTIONS
)
def test_nobody_moves_between_versions(
    first: list[dict[str, int]], more: list[dict[str, int]], fraction: float
) -> None:
    before = named(first)
    held = choose_holdout(before, fraction=fraction)
    after = [*settled(before, held), *named(more, len(first))]
    now = choose_holdout(after, fraction=fraction)
    if held:
        assert {unit.name for unit in before if unit.name in now} == held


@given(st.lists(st.lists(COUNTS, min_size=1, max_size=12), min_size=2, max_size=6))
def test_training_gets_at_least_half_of_what_is_new_of_every_label(waves: list[list[dict[str, int]]]) -> None:
    units: list[Unit] = []
    for wave in waves:
        new = named(wave, len(units))
        held = choose_holdout([*units, *new], fraction=0.5)
        of_new, of_held = total(new), total(of(new, held))
        assert all(of_held[label] <= max(1, count / 2) for label, count in of_new.items())
        units = settled([*units, *new], held)


@pytest.mark.parametrize("seed", range(5))
def test_customers_with_mixed_tickets_still_give_every_label_its_share(seed: int) -> None:
    """Customers with one to six tickets each, of six labels from frequent to rare, over four versions."""
    chance = random.Random(seed)
    names, weights = ("a", "b", "c", "d", "e", "f"), (30, 25, 20, 12, 8, 5)
    units: list[Unit] = []
    for _ in range(4):
        wave = [dict(Counter(chance.choices(names, weights, k=chance.randint(1, 6)))) for _ in range(120)]
        new = named(wave, len(units))
        units = settled([*units, *new], choose_holdout([*units, *new], fraction=0.15))
        held, everything = total([u for u in units if u.side is Side.HOLDOUT]), total(units)
        goals = goals_of(everything, 0.15)
        assert all(abs(held[label] - goal) <= 1 for label, goal in goals.items()), (goals, held)


def test_a_large_unit_trains_and_what_was_held_out_counts_towards_the_goals() -> None:
    large = Unit("large", {"bell": 40})
    small = [Unit(f"unit-{number}", {"bell": 1}) for number in range(60)]
    held = choose_holdout([large, *small], fraction=0.2)
    assert "large" not in held
    assert len(held) == 20
    before = [replace(unit, side=Side.HOLDOUT) for unit in small[:18]]
    assert len(choose_holdout([large, *before, *small[18:]], fraction=0.2)) == 20


def test_rare_labels_reach_the_holdout_the_most_frequent_first_until_it_is_large_enough() -> None:
    common = [Unit(f"common-{number}", {"common": 1}) for number in range(70)]
    rare = [Unit(f"{label}-{n}", {label: 1}) for label in "stuvw" for n in range(2)]
    names = choose_holdout([*common, *rare, Unit("single", {"single": 1})], fraction=0.15)
    reached = {name[0] for name in names if name[1] == "-"}
    assert len(reached) == 16 - sum(name.startswith("common") for name in names) == 5
    assert "single" not in names, "a label's only unit trains"
    wide = [Unit(f"{number}-{n}", {str(number): 1}) for number in range(40) for n in range(2)]
    assert len(choose_holdout(wide, fraction=0.15)) == 16


def test_what_trained_is_held_out_only_where_nothing_else_is() -> None:
    trained = [Unit(f"unit-{number}", {"bell": 1}, Side.TRAIN) for number in range(20)]
    new = [Unit("new", {"horn": 1}), Unit("newer", {"horn": 1})]
    assert choose_holdout([*trained, *new], fraction=0.2) < {"new", "newer"}
    assert len(choose_holdout(trained, fraction=0.2)) == 1


def answers(labels: Sequence[str], start: int = 0) -> list[Unit]:
    """Return one unit for each answer to a request."""
    return [Unit(f"answer-{n}", {one: 1}) for n, one in enumerate(labels, start)]


@pytest.mark.parametrize(
    "labels", [[f"new-{n % 8}" for n in range(60)], [""] * 60], ids=["new labels", "free text"]
)
def test_a_third_of_60_answers_to_a_request_are_held_out(labels: list[str]) -> None:
    units = answers(labels)
    held = of(units, choose_of_request(units, fraction=0.1))
    assert len(held) == 20
    assert all(2 <= count <= 3 for label, count in total(held).items() if label)


def test_the_only_answer_with_a_label_is_held_out_where_other_examples_teach_the_label() -> None:
    units = answers([f"label-{n}" for n in range(60)])
    assert not choose_of_request(units, fraction=0.1)
    known = [f"label-{n}" for n in range(30)]
    held = of(units, choose_of_request(units, fraction=0.1, learnt=known))
    assert total(held).keys() < set(known)
    assert len(held) >= 10


def test_later_answers_to_a_request_move_nobody_and_bring_its_part_to_a_third() -> None:
    first = answers(["new"] * 20)
    held = choose_of_request(first, fraction=0.1)
    after = choose_of_request([*settled(first, held), *answers(["new"] * 40, start=20)], fraction=0.1)
    assert (len(held), len(after), held < after) == (7, 20, True)


def test_answers_that_trained_before_requests_were_told_apart_go_on_training() -> None:
    trained = settled(answers(["new"] * 40), frozenset())
    assert not choose_of_request(trained, fraction=0.1)


def test_a_larger_fraction_holds_for_requests_too() -> None:
    assert len(choose_of_request(answers(["new"] * 40), fraction=0.5)) == 20
