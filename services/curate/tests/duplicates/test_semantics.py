from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_contracts.formats.data_quality import SemanticDuplicates
from tunewheel_curate.duplicates.semantics import semantic_pairs, settle_semantic_duplicates
from tunewheel_curate.pipeline import build
from tunewheel_curate.similarity.pairs import SimilarPairs

SAME = ("the battery of my bicycle is broken", "my bike's battery is broken")
TEXTS = [
    *SAME,
    "please file an inheritance tax return for my aunt",
    "which trains run to the coast on sunday",
    "the soup needs a little more salt and pepper",
    "how do i reset the password of my account",
    "a parcel that i ordered in may never arrived",
    "our meeting moved from tuesday to friday morning",
]


def pairs_of(texts: list[str], threshold: float = 0.7) -> set[frozenset[str]]:
    return {frozenset((texts[p.first], texts[p.second])) for p in semantic_pairs(texts, threshold=threshold)}


def test_paraphrases_are_pairs_and_the_rest_is_not() -> None:
    assert pairs_of(TEXTS) == {frozenset(SAME)}
    assert not semantic_pairs([], threshold=0.5)
    assert not semantic_pairs(["", "?!"], threshold=0.5)


@settings(max_examples=10)
@given(st.permutations(TEXTS))
def test_order_does_not_matter(order: list[str]) -> None:
    assert pairs_of(order, 0.3) == pairs_of(TEXTS, 0.3)


def records_of(records, *labels: str) -> pl.DataFrame:
    frame = records(*({} for _ in TEXTS))
    return frame.with_columns(
        pl.Series("key", TEXTS), pl.Series("label", [*labels, *["horn"] * (len(TEXTS) - len(labels))])
    )


@pytest.mark.parametrize(
    ("action", "labels", "replies", "dropped"),
    [
        ("report", ("bell", "bell"), ("Oil it.", "Oil it."), 0),
        ("drop", ("bell", "bell"), ("Oil it.", "Oil it!"), 1),
        ("drop", ("bell", "horn"), ("Oil it.", "Oil it."), 0),
        ("drop", ("bell", "bell"), ("Oil it.", "Send it to us."), 0),
    ],
)
def test_dropped_only_where_asked_for_and_answers_agree(
    records, spec, action, labels, replies, dropped
) -> None:
    policy = SemanticDuplicates(enabled=True, threshold=0.7, action=action)
    frame = records_of(records, *labels)
    said = [
        json.dumps({"category": label, "reply": reply}) for label, reply in zip(labels, replies, strict=True)
    ]
    frame = frame.with_columns(pl.Series("output", [*said, *frame["output"][len(said) :]]))
    stage = settle_semantic_duplicates(frame, SimilarPairs.of(()), policy, spec().task)
    assert stage.semantic.model_dump() == {
        "threshold": 0.7, "pairs": 1, "clusters": 1, "examples": 2, "dropped": dropped,
    }  # fmt: skip
    assert stage.shown == (action == "drop")
    assert stage.funnel.reasons == ({"semantic_duplicate": 1} if dropped else {})
    assert len(stage.pairs) == 1


@pytest.mark.parametrize("action", ["report", "drop"])
def test_a_build_tells_and_keeps_them_together(records, spec, varied_rows, action) -> None:
    rows = [*varied_rows(40), *({"input": text} for text in SAME)]
    asked = spec(semantic_duplicates={"enabled": True, "threshold": 0.7, "action": action})
    made = build(records(*rows), asked)
    report = made.quality.semantic
    assert report is not None
    assert report.dropped == (1 if action == "drop" else 0)
    wanted = {"semantic_duplicates": {"semantic_duplicate": 1}} if action == "drop" else {}
    assert {s.stage: s.reasons for s in made.funnel if s.stage == "semantic_duplicates"} == wanted
    sides = [
        [SAME[0] in str(side["messages"].to_list()), SAME[1] in str(side["messages"].to_list())]
        for side in (made.split.train, made.split.holdout)
    ]
    assert sum(any(side) for side in sides) == 1
    assert build(records(*rows), spec()).quality.semantic is None
