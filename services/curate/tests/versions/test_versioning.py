from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import EXPECTATION_COLUMNS
from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_curate.examples.tokens import estimating
from tunewheel_curate.holdout.splitting import Split
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.versions.card import NOTHING, data_card
from tunewheel_curate.versions.changes import Change
from tunewheel_curate.versions.suite import check_expectations, observed, unmet
from tunewheel_curate.versions.versioning import rows_sha256, with_findings, with_origin, write_version

TOKENS = estimating("some/model", "no hub")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


@pytest.fixture
def made(records, spec, varied_rows):
    return build(records(*varied_rows(30)), spec())


def test_a_version_is_what_its_manifest_says(made, spec, tmp_path: Path) -> None:
    written = write_version(made, spec(), tmp_path)
    manifest = DatasetManifest.model_validate_json((tmp_path / "manifest.json").read_bytes())
    assert manifest == written
    assert manifest.dataset_id.startswith("ds-")
    for ref in (manifest.train, manifest.holdout, manifest.card, manifest.lineage):
        name = ref.path.removeprefix(f"datasets/{manifest.dataset_id}/")
        assert content_sha256((tmp_path / name).read_bytes()) == ref.sha256
    rows = pl.read_parquet(tmp_path / "train.parquet").to_dicts()
    assert len([ChatExample.model_validate(row) for row in rows]) == manifest.counts.train


def test_rows_tell_where_they_come_from_and_the_version_is_named_without(made, spec, tmp_path: Path) -> None:
    manifest = write_version(made, spec(), tmp_path)
    assert manifest.rows_sha256 == rows_sha256(made.split)
    held, trained = (
        [ChatExample.model_validate(row) for row in pl.read_parquet(tmp_path / name).to_dicts()]
        for name in ("holdout.parquet", "train.parquet")
    )
    assert {row.source for row in (*held, *trained)} == {"ticket"}
    assert {row.language for row in trained} == {None}
    assert [row.example_id for row in held] == made.split.holdout["example_id"].to_list()


def test_held_out_rows_name_the_request_for_labels_that_they_answer_and_nothing_else(
    records, spec, varied_rows, tmp_path: Path
) -> None:
    rows = varied_rows(40)
    said: list[dict[str, str]] = [{"label_request": "labels-1"}] * 20 + [{}] * 10
    said += [{"label_request": "Not a name!"}] * 5 + [{"other": "labels-1"}] * 5
    asked = [row | {"attributes": json.dumps(one)} for row, one in zip(rows, said, strict=True)]
    written = write_version(build(records(*asked), spec()), spec(), tmp_path)
    lineage = pl.read_parquet(tmp_path / "lineage.parquet")
    answers = set(lineage.filter(pl.col("record_id") < "rec-0020")["example_id"])
    held = [
        ChatExample.model_validate(row) for row in pl.read_parquet(tmp_path / "holdout.parquet").to_dicts()
    ]
    named = {row.example_id for row in held if row.label_request == "labels-1"}
    assert named == answers & {row.example_id for row in held}
    assert len(named) >= 6
    assert {row.label_request for row in held} == {"labels-1", None}
    assert "label_request" not in pl.read_parquet(tmp_path / "train.parquet").columns
    plain = build(records(*rows), spec())
    assert "label_request" not in with_findings(plain.split.holdout, plain).columns
    assert written.counts.holdout == len(held)


def test_a_row_of_nobodys_record_has_no_source_and_a_short_question_no_language(made) -> None:
    asked = ("horn?", "Please tell me when the parcel arrives, I have been waiting since Monday.")
    rows = [
        row | {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "bell"}]}
        for row, text in zip(made.split.holdout.head(2).to_dicts(), asked, strict=True)
    ]
    frame = pl.DataFrame([rows[0] | {"record_ids": []}, rows[1]], schema=made.split.holdout.schema)
    told = with_origin(frame, made.lineage, languages=True).to_dicts()
    assert [(row["source"], row["language"]) for row in told] == [(None, None), ("ticket", "en")]


def test_rows_are_hashed_as_the_json_of_all_of_them(made) -> None:
    many = pl.concat([made.split.train] * 200)
    assert many.height > 4_096
    rows = {"train": many.sort("example_id").to_dicts(), "holdout": made.split.holdout.to_dicts()}
    assert rows_sha256(Split(many, made.split.holdout)) == content_sha256(rows)
    assert rows_sha256(Split(many, many.clear())) == content_sha256(rows | {"holdout": []})


def test_the_same_build_writes_the_same_bytes(made, spec, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_version(made, spec(), tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


EXPECTED = (
    {"type": "expect_column_values_to_be_between", "kwargs": {"column": "question_words", "max_value": 11}},
    {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "answer_words", "max_value": 50}},
    {
        "type": "expect_column_values_to_be_in_set",
        "kwargs": {"column": "question", "value_set": ["w1x1"]},
        "action": "warn",
    },
)
CHANGES = (Change("share of label bell", 0.5, 0.55, 0.1), Change("share of label horn", 0.2, 0.45, 0.1))


def test_what_is_expected_is_told_in_words_and_on_pages_without_texts(made, spec, tmp_path: Path) -> None:
    wanted, seen = spec(expectations=EXPECTED), observed(*both_sides(made), TOKENS)
    for name in ("one", "two"):
        results = check_expectations(
            seen, CHANGES, wanted, on_change="reject", dataset_id="ds-1", folder=tmp_path / name
        )
    told = [(one.by, one.met, one.action) for one in results]
    assert told == [
        ("project", False, "hold"), ("project", True, "hold"), ("project", False, "warn"),
        ("version_before", True, "reject"), ("version_before", False, "reject"),
    ]  # fmt: skip
    assert results[0].observed == "30 of 30 rows are otherwise"
    assert unmet(results, "reject") == (f"share of label horn: {results[4].observed}",)
    assert "0.45; in the version before 0.2, allowed are 0.1 to 0.3" in results[4].observed
    pages = contents(tmp_path / "one")
    assert pages == contents(tmp_path / "two")
    text = "".join(page.decode() for name, page in pages.items() if name.endswith(".html"))
    assert "share of label horn" in text
    assert "w2x3" not in text, "no text of an example"
    assert "great-expectations-web-assets" not in text
    write_version(made, wanted, tmp_path / "version", expectations=results)
    card = (tmp_path / "version" / "card.md").read_text()
    assert "2 of 5 expectations are met; all stand in the [Data Docs](data_docs/index.html)." in card
    assert "(action: warn)" in card


@pytest.mark.parametrize(
    ("kwargs", "field"),
    [
        ({"colum": "label"}, "dataset.expectations.0.kwargs"),
        ({"column": "question", "min_value": 3}, "dataset.expectations.0"),
    ],
)
def test_an_expectation_that_cannot_be_checked_names_its_field(
    made, spec, tmp_path: Path, kwargs: dict[str, Any], field: str
) -> None:
    wanted = spec(expectations=[{"type": "expect_column_values_to_be_between", "kwargs": kwargs}])
    with pytest.raises(InvalidSpec) as caught:
        check_expectations(
            observed(*both_sides(made)), (), wanted, on_change="warn", dataset_id="ds-1", folder=tmp_path
        )
    assert caught.value.field == field


def test_with_nothing_to_expect_there_are_no_pages(made, spec, tmp_path: Path) -> None:
    seen = observed(*both_sides(made))
    assert set(seen.columns) == EXPECTATION_COLUMNS
    assert check_expectations(seen, (), spec(), on_change="hold", dataset_id="ds-1", folder=tmp_path) == ()
    assert not list(tmp_path.iterdir())


def both_sides(made: Build) -> list[pl.DataFrame]:
    return [with_origin(side, made.lineage) for side in (made.split.train, made.split.holdout)]


def test_labels_to_review_travel_with_the_version(records, spec, varied_rows, tmp_path: Path) -> None:
    ann = {"input": "who is right here", "validated_by": "ann"}
    bob = {"input": "Who is right here", "validated_by": "bob", "output": '{"category": "horn"}'}
    made = build(records(*varied_rows(30), ann, bob), spec())
    quality = write_version(made, spec(), tmp_path).quality
    assert quality is not None
    assert quality.review is not None
    assert quality.review_counts == {"conflict": 2}
    listed = pl.read_parquet(tmp_path / "review.parquet")
    assert listed.select("validated_by", "label").rows() == [("ann", "bell"), ("bob", "horn")]
    assert "- 2 records ask the same question" in (tmp_path / "card.md").read_text()


def test_nothing_to_review_makes_no_list(made, spec, tmp_path: Path) -> None:
    quality = write_version(made, spec(), tmp_path).quality
    assert quality is not None
    assert (quality.review, quality.review_counts) == (None, {})
    assert not (tmp_path / "review.parquet").exists()


def test_the_card_says_what_a_reader_must_know(made, spec) -> None:
    card = data_card("ds-1", spec(), made)
    assert "# Dataset ds-1" in card
    assert "30 records gave 30 examples" in card
    assert "| bell |" in card
    assert "no examples are made from them" in card
    assert "Caution" not in card
    risky = spec().model_copy(update={"train": TrainSpec(learning_rate=1e-3)})
    assert f"> **Caution.** {risky.cautions[0]}\n\n" in data_card("ds-1", risky, made)


def test_the_card_counts_answers_that_name_an_expert_and_are_trusted_less(records, spec, varied_rows) -> None:
    """A correction names whoever wrote it, and claims no expert."""
    rows = varied_rows(30)
    named = {"validated_by": "kim", "trust": "unverified"}
    rows[:3] = [
        row | named | {"kind": kind}
        for row, kind in zip(rows, ("ticket", "example", "feedback"), strict=False)
    ]
    rows[3] |= {"validated_by": "kim"}
    card = data_card("ds-1", spec(corrections="train"), build(records(*rows), spec(corrections="train")))
    assert "\n2 answers name an expert who validated them" in card
    plain = data_card("ds-1", spec(), build(records(*varied_rows(30)), spec()))
    assert "name an expert" not in plain


def test_the_card_says_where_examples_come_from_and_under_which_licences(records, spec, varied_rows) -> None:
    def told(**attributes: str) -> dict[str, str]:
        return {"attributes": json.dumps(attributes)}

    first, second, third, *rest = varied_rows(30)
    frame = records(
        first | told(license="CC-BY-4.0", source="forum"),
        second | told(licence="CC-BY-4.0", origin="forum", channel="mail"),
        third | told(license="a|b"),
        {"kind": "document", "output": None} | told(license="proprietary", source="handbook"),
        *(row | told(channel="chat") for row in rest),
    )
    card = data_card("ds-1", spec(), build(frame, spec()))
    section = card.partition("## Sources\n\n")[2].partition("\n\n")[0]
    assert section.splitlines() == [
        "| kind | source | licence | records | in this version |",
        "|---|---|---|---:|---:|",
        "| document | handbook | proprietary | 1 | 0 |",
        f"| ticket | {NOTHING} | a\\|b | 1 | 1 |",
        "| ticket | chat | not stated | 27 | 27 |",
        "| ticket | forum | CC-BY-4.0 | 2 | 2 |",
    ]
