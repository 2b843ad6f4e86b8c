"""Which answers count as near a cluster, on vectors whose distances are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.events.turns import LabelCluster, LabelsRequested
from tunewheel_curate.labelling.near_cluster import NEAR_COLUMNS, NearCluster, NearCount
from tunewheel_curate.records.table import RecordTable, ends_of
from tunewheel_embedding.static import StaticEmbedder, Vectors, unit_length
from tunewheel_turns.state import Labels

from ..conftest import make_spec

TAUGHT = {"trust": "unverified", "attributes": json.dumps({"taught_by": "some/teacher"})}


class Words:
    """Embeds a text by its first word: solar and roof lie together, the others far away."""

    def __init__(self) -> None:
        self.embedded: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.embedded += texts
        known = {"solar": (3.0, 0.3, 0.0), "roof": (1.0, 0.2, 0.0), "bell": (0.0, 0.0, 2.0)}
        return np.asarray([known.get(text.split()[0], (0.0, 1.0, 1.0)) for text in texts])


def request(**changes: Any) -> LabelsRequested:
    asked = {
        "project": "shop", "request_id": "alarm-1", "alarm_id": "alarm-1", "dataset_id": "ds-1", "wanted": 3,
        "centroid": (0.9, 0.1, 0.0), "radius": 0.2, "completion_ids": ("cmpl-1",),
    }  # fmt: skip
    return LabelsRequested.model_validate(asked | changes)


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def near(words: Words) -> NearCluster:
    return NearCluster(request(), words)


def test_experts_answers_within_the_radius_count(near: NearCluster, records) -> None:
    counted = near.add(
        records(
            {"input": "solar hums"},
            {"input": "roof hums"},
            {"input": "bell rings"},
            {"input": "solar never answered", "output": None},
            {"input": "solar nobody validated", "trust": "unverified"},
            {"input": "solar a user corrected", "trust": "corrected"},
            {"input": "solar a document", "kind": "document"},
            {"input": "solar taught", **TAUGHT},
            {"input": "Solar  HUMS"},
        )
    )
    assert counted == NearCount(trusted=2, taught=1)


def test_what_was_looked_at_is_not_embedded_again(near: NearCluster, words: Words, records) -> None:
    rows = records(*({"input": f"solar {number}"} for number in range(6)))
    assert near.add(rows[:4]).trusted == 4
    assert near.add(rows).trusted == 6
    assert len(words.embedded) == 6
    assert near.reached == ends_of(rows)
    near.clear()
    assert (near.count(), near.reached) == (NearCount(0, 0), {})
    assert near.add(rows).trusted == 6


def test_the_newest_of_a_source_counts_and_a_teacher_takes_no_experts_place(
    near: NearCluster, records
) -> None:
    same = {"kind": "example", "source_id": "cmpl-7"}
    rows = records(
        {"input": "solar taught", **TAUGHT, **same},
        {"input": "solar by an expert", **same},
        {"input": "solar taught again", **TAUGHT, **same},
        {"input": "bell after all", **same},
    )
    assert near.add(rows[:1]) == NearCount(0, 1)
    assert near.add(rows[:3]) == NearCount(1, 0)
    assert near.add(rows) == NearCount(0, 0)


def test_the_same_question_by_expert_and_teacher_is_one(near: NearCluster, records) -> None:
    rows = records({"input": "solar hums"}, {"input": "solar hums", **TAUGHT})
    assert near.add(rows) == NearCount(1, 0)


def test_answers_to_the_clusters_own_prompts_count_beyond_the_radius(near: NearCluster, records) -> None:
    answer = {"kind": "example", "source_id": "cmpl-1", "input": "bell rings"}
    assert near.add(records(answer)).trusted == 1
    without = NearCluster(request(centroid=()), Words())
    assert without.add(records(answer, {"input": "solar hums"})).trusted == 1


def test_answers_that_name_the_request_count_where_there_is_no_cluster(records) -> None:
    without = NearCluster(request(centroid=(), request_id="labels-1"), Words())
    named = {"input": "solar hums", "attributes": '{"label_request":"labels-1"}'}
    other = {"input": "solar drips", "attributes": '{"label_request":"labels-2"}'}
    assert without.add(records(named, other, {"input": "solar rings"})).trusted == 1


def test_a_centroid_of_another_length_is_taken_for_none(records) -> None:
    near = NearCluster(request(centroid=(1.0, 0.0)), Words())
    rows = records({"input": "solar hums"}, {"kind": "example", "source_id": "cmpl-1"}, {"input": "solar"})
    with capture_logs() as logs:
        assert near.add(rows[:2]).trusted == 1
        assert near.add(rows).trusted == 1
    told = {"event": "centroid_unusable", "log_level": "error", "request_id": "alarm-1"}
    assert logs == [told | {"length": 2, "expected": 3}]


def test_the_last_question_of_a_conversation_counts(near: NearCluster, words: Words, records) -> None:
    history = json.dumps([{"role": "user", "content": "bell?"}, {"role": "assistant", "content": "no"}])
    rows = records({"input": "solar", "history": history, "title": "T"}, {"input": "hums", "title": "solar"})
    assert near.add(rows).trusted == 2
    assert words.embedded == ["solar", "solar\n\nhums"]


def test_real_vectors_tell_a_new_subject_from_the_old_ones(records) -> None:
    embedder = StaticEmbedder()
    asked = [
        "my solar panel makes a humming noise",
        "the solar roof panels hum at noon",
        "noisy solar inverter",
    ]
    centroid = unit_length(embedder.embed(asked)).mean(axis=0)
    near = NearCluster(request(centroid=tuple(centroid.tolist()), radius=0.5), embedder.embed)
    rows = records(
        {"input": "why does the solar panel on my roof hum?"}, {"input": "I cannot log in to my account"},
        {"input": "please refund my last invoice"}, {"input": "strange humming noise from my solar inverter"},
    )  # fmt: skip
    assert near.add(rows).trusted == 2


def test_the_table_gives_what_came_since(tmp_path, records) -> None:
    table = RecordTable(str(tmp_path / "records"))
    rows = records(*({"input": f"solar {number}"} for number in range(9)), {"project": "other"})
    table.append(rows[:6])
    near = NearCluster(request(), Words())
    assert near.add(table.newer("shop", near.reached, NEAR_COLUMNS)).trusted == 6
    table.append(rows[6:])
    newer = table.newer("shop", near.reached, NEAR_COLUMNS)
    assert newer.height == 3
    assert newer.columns == list(NEAR_COLUMNS)
    assert near.add(newer).trusted == 9
    assert near.reached == ends_of(rows.filter(pl.col("project") == "shop"))


OUTSIDE = {"output": None, "attributes": json.dumps({"out_of_scope": "true"}, separators=(",", ":"))}
TOPICS = tuple(
    LabelCluster(cluster_id=f"topic-{of}", completion_ids=tuple(f"{of}-{n}" for n in range(6)), size=6)
    for of in "ab"
)


@pytest.fixture
def topics(words: Words) -> NearCluster:
    """A request without a place: two topics of six prompts, and a prompt that is in no topic."""
    named = (*(name for one in TOPICS for name in one.completion_ids), "alone")
    single = LabelCluster(cluster_id="single", completion_ids=("alone",), size=40)
    asked = request(centroid=(), completion_ids=named, clusters=(*TOPICS, single))
    return NearCluster(asked, words, make_spec().task)


def answers(of: str, count: int, label: str = "bell", start: int = 0, **told: Any) -> list[dict[str, Any]]:
    given = {"output": json.dumps({"category": label})} | told
    numbers = range(start, start + count)
    return [{"source_id": f"{of}-{n}", "input": f"{of} asks {n}"} | given for n in numbers]


def test_each_topic_needs_answers_of_its_own(topics: NearCluster, records) -> None:
    topics.add(records(*answers("a", 5), {"source_id": "alone", "input": "hi"}))
    assert topics.labels() == Labels(6, {"topic-a": 0, "topic-b": 5}, 1.0)


def test_topics_with_one_label_need_as_many_answers_as_one(topics: NearCluster, records) -> None:
    topics.add(records(*answers("a", 3), *answers("b", 2)))
    assert topics.labels().lacking == {"topic-a": 0, "topic-b": 0}


def test_a_label_that_other_records_teach_needs_two_answers(topics: NearCluster, records) -> None:
    taught = answers("ticket", 9, "horn")
    topics.add(records(*taught, *answers("a", 1, "horn"), *answers("b", 2, "horn")))
    assert topics.labels() == Labels(3, {"topic-a": 4, "topic-b": 0}, 1.0)


def test_two_labels_in_one_topic_each_count_for_themselves(topics: NearCluster, records) -> None:
    topics.add(records(*answers("a", 2), *answers("a", 2, "horn", start=2)))
    assert topics.labels().lacking["topic-a"] == 1


def test_a_topic_out_of_scope_is_settled_and_lowers_the_share_in_scope(topics: NearCluster, records) -> None:
    topics.add(records(*answers("a", 2, **OUTSIDE), *answers("b", 1, **OUTSIDE)))
    labels = topics.labels()
    assert labels.lacking == {"topic-a": 0, "topic-b": 5}
    assert (labels.trusted, labels.in_scope) == (0, pytest.approx(10 / 13))


def test_the_newest_answer_says_whether_a_prompt_is_out_of_scope(topics: NearCluster, records) -> None:
    topics.add(records(*answers("a", 2, **OUTSIDE), *answers("b", 2)))
    topics.add(records(*answers("a", 2, offset=9), *answers("b", 1, offset=9, **OUTSIDE)))
    assert topics.labels() == Labels(3, {"topic-a": 2, "topic-b": 4}, pytest.approx(12 / 13))


def test_a_topic_whose_prompts_are_all_done_is_settled(topics: NearCluster, records) -> None:
    done = [*answers("a", 1, **OUTSIDE), *answers("a", 3, start=1), *answers("a", 2, "horn", start=4)]
    topics.add(records(*done))
    assert topics.labels().lacking["topic-a"] == 0


def test_nobody_but_an_expert_calls_a_topic_out_of_scope(topics: NearCluster, records) -> None:
    topics.add(records(*answers("a", 3, trust="unverified", **OUTSIDE)))
    assert topics.labels() == Labels(0, {"topic-a": 5, "topic-b": 5}, 1.0)
