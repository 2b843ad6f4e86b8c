from __future__ import annotations

import math

import pytest
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_train.data.datasets import Encoded
from tunewheel_train.data.validation import Patience, carve
from tunewheel_train.preparation import _held_back


def examples(count: int, *, per_group: int = 1) -> list[Encoded]:
    return [Encoded(f"ex-{n}", (1, 2), (0, 1), group=f"g-{n // per_group}") for n in range(count)]


def test_whole_groups_are_held_back():
    training, validation = carve(examples(2000, per_group=4), fraction=0.1, most=400, seed=1)
    assert 100 < len(validation) < 320
    assert not {e.group for e in training} & {e.group for e in validation}
    assert len(training) + len(validation) == 2000


def test_an_example_that_is_added_moves_no_other():
    few, many = (carve(examples(count), fraction=0.1, most=400, seed=1)[1] for count in (1000, 1500))
    assert {e.example_id for e in few} == {e.example_id for e in many if int(e.example_id[3:]) < 1000}


def test_another_seed_holds_back_others():
    drawn = [{e.example_id for e in carve(examples(1000), fraction=0.1, most=400, seed=s)[1]} for s in (1, 2)]
    assert drawn[0] != drawn[1]


def test_of_whole_groups_no_more_are_held_back_than_it_takes():
    training, validation = carve(examples(4000, per_group=7), fraction=0.1, most=100, seed=1)
    assert len(validation) == 105
    assert len(training) + len(validation) == 4000
    # those that are held back are the first of those that would be without a limit
    every = {e.example_id for e in carve(examples(4000, per_group=7), fraction=0.1, most=4000, seed=1)[1]}
    assert {e.example_id for e in validation} < every


@pytest.mark.parametrize("recipe", [{}, {"patience": 0}, {"preference": {"alone": True}}], ids=str)
def test_what_says_too_little_or_is_not_asked_for_is_trained_on(recipe: dict):
    few = examples(100) if not recipe else examples(2000)
    training, validation, validating = _held_back(few, TrainSpec.model_validate(recipe))
    assert (len(training), validation, validating) == (len(few), [], None)


def test_a_group_too_large_to_be_validated_on_cheaply_is_trained_on():
    one = [Encoded(f"ex-{n}", (1, 2), (0, 1), group="g") for n in range(500)]
    rest = [Encoded(f"ex-{500 + n}", (1, 2), (0, 1), group=f"g-{n}") for n in range(100)]
    recipe = TrainSpec(validation_fraction=0.5, epochs=0.5)
    held = {seed: _held_back([*one, *rest], recipe.model_copy(update={"seed": seed})) for seed in range(9)}
    assert any(len(validation) < 60 for _, validation, _ in held.values())
    for training, validation, validating in held.values():
        assert len(training) + len(validation) == 600
        assert validating is None or validating.share <= 0.05
        assert bool(validation) == (validating is not None)


def test_nothing_is_held_back_unasked():
    assert carve(examples(1000), fraction=0.0, most=400, seed=1)[1] == []


def test_patience_is_over_after_so_many_validations_without_a_better_one():
    patience = Patience(2)
    for step, loss in enumerate([3.0, 2.0, 2.5]):
        patience.saw(loss, step)
        assert not patience.over
    patience.saw(2.0, 3)
    assert patience.over
    assert (patience.best_step, patience.best_loss) == (1, 2.0)


def test_a_loss_that_is_no_number_is_no_better():
    patience = Patience(1)
    patience.saw(1.0, 1)
    patience.saw(math.nan, 2)
    assert patience.over


def test_no_patience_never_ends():
    patience = Patience(0)
    for step in range(10):
        patience.saw(float(step), step)
    assert not patience.over


def test_a_resumed_patience_decides_alike():
    patience, resumed = Patience(2), Patience(2)
    for step, loss in enumerate([3.0, 4.0]):
        patience.saw(loss, step)
    resumed.restore(patience.state())
    assert resumed == patience
    resumed.restore({})
    assert resumed == patience
