from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tunewheel_contracts.formats.dataset import FunnelStage
from tunewheel_curate.versions.changes import Change, Composition, changes_between


def composition(
    count: int,
    *,
    billing: float = 0.5,
    words: float = 20,
    drops: float = 0.2,
    seed: int = 0,
    grouped: bool = True,
) -> Composition:
    """Return ``count`` rows of customers of very unequal size, each of whom asks mostly about one thing."""
    rng = np.random.default_rng(seed)
    group = rng.zipf(1.7, count) % 500 if grouped else np.arange(count)
    own = rng.random(500 if grouped else count)
    label = np.where((own[group] * 0.7 + rng.random(count) * 0.3) < billing, "billing", "delivery")
    rows = pl.DataFrame(
        {
            "example_id": [f"ex-{seed}-{n}" for n in range(count)],
            "format": "answer",
            "group": [f"g{n}" for n in group],
            "label": label,
            "source": "ticket",
            "question_words": rng.lognormal(np.log(words), 0.6, count).astype(int) + 1,
            "answer_words": rng.lognormal(3, 0.6, count).astype(int) + 1,
        }
    )
    entered = round(count / (1 - drops))
    dropped = int(rng.binomial(entered, drops))
    return Composition(rows, (FunnelStage(stage="cleaning", entered=entered, left=entered - dropped),))


def beyond(changes: tuple[Change, ...]) -> set[str]:
    return {one.figure for one in changes if not one.low <= one.now <= one.high}


@pytest.mark.parametrize(
    ("changed", "figure"),
    [
        ({"billing": 0.75}, "share of label billing"),
        ({"words": 60}, "mean logarithm of question words"),
        ({"drops": 0.5}, "share that cleaning drops"),
    ],
)
def test_a_great_change_of_many_rows_is_beyond_what_is_allowed(
    changed: dict[str, float], figure: str
) -> None:
    before, now = composition(1000, grouped=False), composition(1000, grouped=False, seed=1, **changed)
    assert figure in beyond(changes_between(before, now))


def test_the_same_change_of_few_rows_or_of_one_customer_is_chance() -> None:
    few, many = composition(20, grouped=False), composition(20, grouped=False, seed=1, billing=0.7)
    assert beyond(changes_between(few, many)) == set()
    one = composition(1000, grouped=False)
    flood = one.rows.with_columns(group=pl.lit("g-flood"), label=pl.lit("billing")).head(200)
    changes = changes_between(one, Composition(pl.concat([one.rows, flood]), one.funnel))
    (share,) = (change for change in changes if change.figure == "share of label billing")
    assert share.allowed > 0.1


def test_a_new_kind_of_source_and_a_label_with_odd_letters_have_figures() -> None:
    before, now = composition(400, grouped=False), composition(400, grouped=False, seed=2)
    odd = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("<b>$x</b>")).otherwise("label").alias("label")
    half = (
        pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("example")).otherwise("source").alias("source")
    )
    changes = changes_between(before, Composition(now.rows.with_columns(odd, half), now.funnel))
    assert {"share of source example", "share of label _b__x__b_"} <= beyond(changes)


def test_rows_that_were_asked_for_do_not_count_and_nothing_to_compare_is_no_change() -> None:
    before = composition(300, grouped=False)
    answers = composition(200, grouped=False, seed=3, billing=1.0)
    both = Composition(pl.concat([before.rows, answers.rows]), before.funnel)
    assert beyond(changes_between(before, both)) == {"share of label billing", "share of label delivery"}
    assert beyond(changes_between(before, both.without(answers.rows["example_id"].to_list()))) == set()
    nothing = Composition(before.rows.clear(), ())
    assert changes_between(nothing, before) == changes_between(before, nothing) == ()


def test_stable_data_is_not_held() -> None:
    """Also where versions grow, or where most labels are rare. With 0 of 200, fewer than 2 in 100 are held
    (Clopper and Pearson 1934, at .95). ``tests/bench/kept.py`` simulates more."""
    rare = pl.col("group").str.len_chars() * 7 + pl.col("question_words") % 10
    held = 0
    for seed in range(200):
        before, now = composition(160 if seed % 2 else 60, seed=seed), composition(200, seed=1000 + seed)
        if seed % 4 > 1:
            now = Composition(pl.concat([before.rows, now.rows]), now.funnel)
        if seed % 8 > 3:
            before, now = (
                Composition(one.rows.with_columns(label=pl.format("label {}", rare)), one.funnel)
                for one in (before, now)
            )
        held += bool(beyond(changes_between(before, now)))
    assert held == 0


def test_labels_whose_names_look_alike_are_figures_of_their_own() -> None:
    version = composition(400)
    labels = {"billing": "a/b", "delivery": "a?b"}
    version = Composition(version.rows.with_columns(pl.col("label").replace(labels)), version.funnel)
    changes = [one for one in changes_between(version, version) if "label" in one.figure]
    assert len({one.figure for one in changes}) == 2
    assert changes[0].figure == "share of label a_b"


def test_the_figures_do_not_depend_on_the_order_of_rows_and_groups() -> None:
    before, now = composition(400), composition(500, seed=1)
    first = changes_between(before, now)
    assert len(first) == 6
    for seed in range(20):
        shuffled = [
            Composition(one.rows.sample(fraction=1, shuffle=True, seed=seed), one.funnel)
            for one in (before, now)
        ]
        assert changes_between(*shuffled) == first
