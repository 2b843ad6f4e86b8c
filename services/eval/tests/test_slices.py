"""Parts of a holdout: which there are, what they say, and the worst first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval import slices
from tunewheel_eval.metrics import Outcomes
from tunewheel_eval.slices import slices_by, slices_of
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Scores


def measured(scores: Mapping[Role, Any], clusters: Iterable[int], *, lower: bool = False) -> Measured:
    return Measured(
        name="label_accuracy", test="proportion", lower_is_better=lower, lowest=0.0, highest=1.0,
        on="holdout", clusters=np.array([*clusters]),
        scores={role: Scores(values) for role, values in scores.items()},
    )  # fmt: skip


def labelled(examples: tuple[ChatExample, ...]) -> tuple[ChatExample, ...]:
    russian = examples[5].messages[1].model_copy(update={"content": "Где моя посылка?"})
    labels = ("delivery", "billing", "delivery", "billing", "delivery", "billing")
    found = [one.model_copy(update={"label": label}) for one, label in zip(examples, labels, strict=True)]
    messages = (found[5].messages[0], russian, found[5].messages[2])
    found[2] = found[2].model_copy(update={"source": "feedback", "language": "en"})
    return (*found[:5], found[5].model_copy(update={"messages": messages}))


def test_the_worst_part_is_first(examples: tuple[ChatExample, ...]) -> None:
    scores = {
        Role.CANDIDATE: np.array([1.0, 0, 1, 0, 1, 0]),
        Role.CHAMPION: np.array([0.0, 0, 1, 1, 1, 1]),
    }
    found = slices_of(labelled(examples), measured(scores, [0, 1, 0, 2, 3, 4]), seed=0)
    told = {(one.by, one.value): (one.rows, one.figures) for one in found}
    assert told[("label", "billing")] == (3, {"candidate": 0.0, "champion": 2 / 3})
    assert told[("group", "prompts like that of ex-0")] == (2, {"candidate": 1.0, "champion": 0.5})
    assert told[("script", "cyrillic")] == (1, {"candidate": 0.0, "champion": 1.0})
    assert told[("source", "feedback")] == told[("language", "en")]
    assert found[0].value == "cyrillic"
    assert ("trust", "expert") not in told  # all rows are
    leads = [one.figures["candidate"] - one.figures["champion"] for one in found]
    assert leads == sorted(leads)


def test_without_a_champion_the_lowest_is_first_and_the_highest_where_lower_is_better(
    examples: tuple[ChatExample, ...],
) -> None:
    scores = {Role.CANDIDATE: np.array([1.0, 0, 1, 0, 1, 0])}
    for lower, first in ((False, 0.0), (True, 1.0)):
        found = slices_of(labelled(examples), measured(scores, range(6), lower=lower), seed=0)
        assert found[0].figures["candidate"] == first


def test_rows_whose_answer_stands_in_training_text_are_a_part_of_their_own(
    examples: tuple[ChatExample, ...],
) -> None:
    marked = [
        one.model_copy(update={"answer_in_training": found})
        for one, found in zip(examples, (True, True, True, False, False, None), strict=True)
    ]
    scores = {Role.CANDIDATE: np.array([1.0, 1, 1, 0, 0, 1]), Role.CHAMPION: np.array([0.0, 1, 0, 0, 1, 1])}
    found = slices_of(marked, measured(scores, range(6)), seed=0)
    told = {one.value: one for one in found if one.by == slices.IN_TRAINING}
    assert {value: one.rows for value, one in told.items()} == {"stands there": 3, "does not": 2}
    assert told["stands there"].figures == {"candidate": 1.0, "champion": 1 / 3}


def test_one_row_has_no_parts(examples: tuple[ChatExample, ...]) -> None:
    scores = {Role.CANDIDATE: np.array([1.0])}
    assert slices_of(examples[:1], measured(scores, [0]), seed=0) == ()


def test_a_part_that_fell_has_an_interval_that_says_so(examples: tuple[ChatExample, ...]) -> None:
    """Two labels of forty rows: one as good as before, the other fell from all right to none."""
    rows = [
        examples[0].model_copy(update={"label": label, "example_id": f"{label}-{number}"})
        for label in ("billing", "delivery")
        for number in range(40)
    ]
    kept = np.ones(80)
    fell = np.where(np.arange(80) < 40, 1.0, 0.0)
    by_label = {
        one.value: one
        for one in slices_of(rows, measured({Role.CANDIDATE: fell, Role.CHAMPION: kept}, range(80)), seed=0)
        if one.by == "label"
    }
    billing, delivery = by_label["billing"], by_label["delivery"]
    assert delivery.high is not None
    assert billing.high is not None
    assert delivery.high < -0.8 < billing.high
    assert billing.low is not None
    assert billing.low > -0.2
    few = slices_of(
        rows[38:42], measured({Role.CANDIDATE: fell[38:42], Role.CHAMPION: kept[:4]}, range(4)), seed=0
    )
    assert {one.high for one in few} == {None}  # two rows show nothing


def test_every_criterions_metric_has_parts_and_the_labels_too(examples: tuple[ChatExample, ...]) -> None:
    rows = labelled(examples)
    values = {
        "valid_output": np.ones(6),
        "label_accuracy": np.array([1.0, 0, 1, 0, 1, 0]),
        "perplexity": np.ones(6),
    }
    scores = {name: Scores(one, np.ones(6) if name == "perplexity" else None) for name, one in values.items()}
    outcomes = {role: Outcomes(scores, 6, ()) for role in (Role.CANDIDATE, Role.BASE)}
    criteria = (Criterion(metric="perplexity", maximum=9.0), Criterion(metric="valid_output", minimum=0.5))
    found = slices_by(criteria, outcomes, rows, np.arange(6), seed=0)
    assert {one.metric for one in found} == {"valid_output", "label_accuracy"}
    assert {one.by for one in found if one.metric == "label_accuracy"} == {"label", "language", "source"}


def test_a_text_without_letters_has_no_script() -> None:
    assert slices._script("?! 12") == "no letters"
