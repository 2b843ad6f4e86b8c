"""Every spec that the docs and examples show passes a good model: the whole verdict is simulated, with all
criteria together."""

from __future__ import annotations

import re
import textwrap
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs.metrics import find_metric
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Scores
from tunewheel_verdicts.verdict import judge, outcome_of

ROOT = Path(__file__).resolve().parents[2]
DRAWS = 40
GENERAL = 200
"""The general-regression set has so many questions; the page on tasks of lm-eval limits them to as many."""
EXAMPLE = "examples/helpdesk/project.yaml"
STATED = {EXAMPLE: 65}
"""Held-out rows of the first version, where the spec's comments state more than the smallest version has."""
GOOD = {EXAMPLE: (0.14, 0.02, 0.78, 0.06, 0.0)}
"""Shares of label accuracy (see ``drawn``), where a spec asks for as much as its models reach. The
second turn takes it from .8 to .92."""


def shown() -> dict[str, dict[str, Any]]:
    """Return every spec or part of a spec with criteria, by the place where it is shown."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    pages += [*ROOT.glob("services/*/README.md"), *ROOT.glob("outputs/*.md"), *ROOT.glob("cli/*.md")]
    texts = {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in ROOT.glob("examples/**/*.yaml")}
    for page in pages:
        for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)):
            texts[f"{page.relative_to(ROOT)}#{number}"] = textwrap.dedent(text)
    found = {place: yaml.safe_load(text) for place, text in texts.items()}
    return {place: spec for place, spec in found.items() if isinstance(spec, dict) and "criteria" in spec}


SHOWN = shown()


def held_out(place: str, spec: dict[str, Any]) -> int:
    sizes = spec.get("dataset", {})
    return STATED.get(place, int(sizes.get("min_examples", 0) * sizes.get("holdout_fraction", 0)))


@cache
def drawn(rows: int, clustered: bool, draw: int, *shares: float) -> tuple[NDArray[np.int64], Any]:
    """Draw hits of candidate, other and base, and the rows' customers: in turn with two rows and with one.

    ``shares``: of candidate and other the candidate alone right, the other alone, both, neither; the base.
    """
    rng = np.random.default_rng(draw)
    outcome = rng.choice(4, rows, p=np.array(shares[:4]))
    hits = (np.isin(outcome, (0, 2)), np.isin(outcome, (1, 2)), rng.random(rows) < shares[4])
    return np.arange(rows) * 2 // 3 if clustered else np.arange(rows), [hit.astype(float) for hit in hits]


def measured(place: str, name: str, rows: int, draw: int, *, second: bool) -> Measured:
    """Return one metric. The first turn takes accuracy from .35 to .8; the second from .7 to .8."""
    metric = find_metric(name)
    assert metric is not None
    own = metric.on == "holdout"
    shares = {
        "valid_output": (0.02, 0.02, 0.96, 0.0, 0.35),
        "regression_accuracy": (0.1, 0.1, 0.5, 0.3, 0.6),
    }.get(name, GOOD.get(place, (0.15, 0.05, 0.65, 0.15, 0.35)))
    clusters, (candidate, other, base) = drawn(rows if own else GENERAL, own, draw, *shares)
    scores = {Role.CANDIDATE: Scores(candidate), Role.BASE: Scores(base if own else other)}
    if second:
        scores[Role.CHAMPION] = Scores(other)
    return Measured(
        name=name, test="proportion", lower_is_better=False, lowest=0.0, highest=1.0, on=metric.on,
        scores=scores, clusters=clusters,
    )  # fmt: skip


def passed(place: str, *, second: bool) -> int:
    spec = SHOWN[place]
    criteria = [Criterion.model_validate(one) for one in spec["criteria"]]
    rows, task = held_out(place, spec), TaskSpec(system_prompt="s")
    verdicts = [
        outcome_of(
            judge(
                criteria,
                {one.metric: measured(place, one.metric, rows, draw, second=second) for one in criteria},
                task,
                resolution=0.05,
                seed=0,
            )
        )
        for draw in range(DRAWS)
    ]
    return verdicts.count("met")


def test_all_specs_are_found() -> None:
    assert len(SHOWN) >= 3
    guide = "docs/bring-your-own-project.md"
    assert {"examples/helpdesk/project.yaml", f"{guide}#0", f"{guide}#1"} <= SHOWN.keys()


@pytest.mark.parametrize("second", [False, True], ids=["first turn", "second turn, ten points more"])
@pytest.mark.parametrize("place", SHOWN)
def test_a_good_model_passes_in_four_of_five_cases(place: str, second: bool) -> None:
    assert passed(place, second=second) >= 0.8 * DRAWS
