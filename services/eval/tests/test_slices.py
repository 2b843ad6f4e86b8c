"""Parts of a holdout: which there are, what they say, and the worst first."""

from __future__ import annotations

import numpy as np
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_eval import slices
from tunewheel_eval.slices import slices_of


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
    found = slices_of(
        labelled(examples), [0, 1, 0, 2, 3, 4], scores, metric="label_accuracy", lower_is_better=False
    )
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
    clusters = range(6)
    for lower, first in ((False, 0.0), (True, 1.0)):
        found = slices_of(labelled(examples), clusters, scores, metric="m", lower_is_better=lower)
        assert found[0].figures["candidate"] == first


def test_one_row_has_no_parts(examples: tuple[ChatExample, ...]) -> None:
    scores = {Role.CANDIDATE: np.array([1.0])}
    assert slices_of(examples[:1], [0], scores, metric="m", lower_is_better=False) == ()


def test_a_text_without_letters_has_no_script() -> None:
    assert slices._script("?! 12") == "no letters"
