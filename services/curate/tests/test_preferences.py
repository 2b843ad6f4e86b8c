from __future__ import annotations

import json

import pytest
from tunewheel_contracts.formats.dataset import PreferencePair
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import build
from tunewheel_curate.versions.versioning import rows_sha256, write_version

BELL, HORN = json.dumps({"category": "bell"}), json.dumps({"category": "horn"})


@pytest.fixture
def made(records, spec, varied_rows):
    def make(*rows: dict[str, object], **dataset: object):
        return build(records(*varied_rows(30), *rows), spec(**dataset))

    return make


def corrected(text: str = "what is this bell that nobody rings", **more: object) -> dict[str, object]:
    return {"input": text, "output": BELL, "rejected_output": HORN, "trust": "corrected"} | more


def held(made) -> set[str]:
    return {record for ids in made.split.holdout["record_ids"].to_list() for record in ids}


def test_an_answer_to_avoid_becomes_a_pair_on_the_training_side(made) -> None:
    groups = [f"group-{n}" for n in range(40)]
    rows = [corrected(f"q{n}a q{n}b q{n}c q{n}d", record_id=f"rec-c{n:02}", group=g)
            for n, g in enumerate(groups)]  # fmt: skip
    build_ = made(*rows, holdout_trust=["expert", "corrected"])
    pairs = [PreferencePair.model_validate(row) for row in build_.preferences.to_dicts()]
    held_out = {record for record in held(build_) if record.startswith("rec-c")}
    assert held_out
    assert {pair.record_id for pair in pairs} == {row["record_id"] for row in rows} - held_out
    assert build_.funnel[-1].reasons == {"held_out": len(held_out)}
    assert build_.counts.preferences == len(pairs)
    first = pairs[0]
    assert [turn.role for turn in first.prompt] == ["system", "user"]
    assert (json.loads(first.chosen), json.loads(first.rejected)) == (
        {"category": "bell"},
        {"category": "horn"},
    )


def test_without_answers_to_avoid_there_is_nothing(made) -> None:
    build_ = made()
    assert build_.preferences is None
    assert build_.counts.preferences == 0


def one_pair(made, **row: object):
    """Build with one correction whose group trains."""
    build_ = made(corrected(record_id="rec-c", group="customer-1", **row))
    assert "rec-c" not in held(build_)
    return build_


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"rejected_output": ' {"category":  "bell"} '}, "same_answer"),
        ({"rejected_output": "   "}, "blank"),
        ({"rejected_output": "x" * 5000}, "too_long"),
        ({"output": "{"}, "record_dropped"),
    ],
)
def test_what_is_no_pair_is_counted(made, row: dict[str, object], reason: str) -> None:
    found = one_pair(made, **row)
    assert found.preferences.is_empty()
    assert {stage.stage: stage.reasons for stage in found.funnel}["preferences"] == {reason: 1}


def test_the_rejected_answer_is_redacted_and_need_not_be_valid(made) -> None:
    found = one_pair(made, rejected_output="Just mail  a@example.com")
    assert found.preferences["rejected"].to_list() == ["Just mail <EMAIL_ADDRESS>"]


def test_a_project_that_rejects_personal_data_rejects_the_pair(made) -> None:
    build_ = made(
        corrected(group="customer-1", rejected_output="mail a@example.com"), pii={"action": "reject"}
    )
    assert {stage.stage: stage.reasons for stage in build_.funnel}["preferences"] == {"record_dropped": 1}


def test_a_duplicate_lends_its_pair_to_the_record_it_gave_way_to(made) -> None:
    text = "what is this bell that nobody rings"
    best = {"input": text.upper(), "output": BELL, "group": "customer-1", "record_id": "rec-best"}
    build_ = made(best, corrected(text, group="customer-1", record_id="rec-worse"))
    assert build_.preferences["record_id"].to_list() == ["rec-worse"]


def test_pairs_are_part_of_what_names_a_version(made, spec, tmp_path) -> None:
    row = corrected(group="customer-1")
    one, other = made(row), made(row | {"rejected_output": "nothing"})
    assert rows_sha256(one.split) == rows_sha256(other.split)
    assert rows_sha256(one.split, one.preferences) != rows_sha256(other.split, other.preferences)
    manifest = write_version(one, spec(), tmp_path)
    assert manifest.preferences is not None
    assert (tmp_path / "preferences.parquet").stat().st_size == manifest.preferences.size_bytes
    assert "1 pairs of an answer to prefer" in (tmp_path / "card.md").read_text()


def test_a_pair_that_holds_a_benchmark_is_left_out_though_a_duplicate_of_its_record_trains(
    records, spec, varied_rows
) -> None:
    said = " ".join(f"word{n}" for n in range(40))
    better = {"input": said, "output": BELL, "group": "customer-1"}
    worse = corrected(f"{said} at noon today", record_id="rec-c", group="customer-1")
    tail = " ".join([*said.split()[-10:], "at", "noon", "today"])
    frame = records(*varied_rows(30), better, worse)
    searched = build(frame, spec(), Inputs(benchmarks=(BenchmarkTexts("exam", (tail,)),)))
    assert searched.counts.examples == 31
    assert {stage.stage: stage.reasons for stage in searched.funnel}["preferences"] == {
        "contaminated: exam": 1
    }
    assert build(frame, spec()).preferences["record_id"].to_list() == ["rec-c"]
