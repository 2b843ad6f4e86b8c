"""Drafted projects of unlike public data sets are accepted, can be decided, and become a version."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tunewheel_cli.drafting.start import Started, start
from tunewheel_cli.publishing.events import make_event
from tunewheel_cli.publishing.items import Found
from tunewheel_cli.publishing.sources import open_source
from tunewheel_cli.spec_file import read_spec
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.records.log import rows_of
from tunewheel_ingest.records import RECORD_OF
from tunewheel_runtime.service import Delivery, Position

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NOW = datetime(2026, 11, 1, tzinfo=UTC)
SETS = {
    "banking77/train.csv": "label_accuracy",
    "nlupp/banking": "set_match",
    "dolly_hh_1k/dolly_hhrlhf_train_small.jsonl": "chrf",
    "it_tickets_synthetic/train-00000-of-00001.csv": "chrf",
    "self_instruct_human/data/seed_tasks.jsonl": "chrf",
    "gitbugs_seamonkey/SeaMonkey_bugs.csv": "label_accuracy",
    "gauntlet_regression/world_knowledge/triviaqa_sm_sub.jsonl": "chrf",
}
"""Paths of data sets, and the metric that each of their projects is judged by."""
CAUTIONED = {
    "abcd_guidelines/abcd_sample.json": "Collect more examples",
    "bbh/navigate.json": "nearly the same as another one",
}
"""Three conversations, and questions of one template."""


@pytest.fixture(autouse=True)
def _without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewheel_cli.drafting.start.available_models", tuple)


def drafted(name: str, folder: Path) -> Started:
    if not (DATA / name).exists():
        pytest.skip(f"{DATA / name} is not here: the public data sets lie beside the checkout")
    started = start([DATA / name])
    (folder / "project.yaml").write_text(started.text, "utf-8")
    read_spec(folder / "project.yaml")
    return started


def version_of(started: Started, folder: Path) -> Build:
    """Build what the printed commands would publish: ingest's records, by curate."""
    deliveries: list[Delivery] = []
    for file in started.read.files:
        for item in open_source(file.path, kind=None, maps=file.maps, max_bytes=MAX_MESSAGE_BYTES):
            assert isinstance(item, Found) or len(started.read.files) > 1, item
            if not isinstance(item, Found):
                continue
            made = make_event(item, project=started.project, kind=None, validated_by="kim")
            if isinstance(made, Envelope):
                record = RECORD_OF[type(made.data)](made)
                assert record is not None
                at = Position(topic="record.ingested", partition=0, offset=len(deliveries))
                deliveries.append(Delivery(new_event(record, source="/t", time=NOW), at, {}))
    return build(rows_of(deliveries), read_spec(folder / "project.yaml"))


NIGHTLY = pytest.mark.nightly("matrices")
LONG = {"banking77/train.csv", "nlupp/banking", "gauntlet_regression/world_knowledge/triviaqa_sm_sub.jsonl"}
"""Sets that take seconds, of a kind that another one has too."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=NIGHTLY if name in LONG else ()) for name in SETS])
def test_a_drafted_project_is_accepted_and_can_be_decided(name: str, tmp_path: Path) -> None:
    started = drafted(name, tmp_path)
    assert started.draft.choice.is_decidable, started.draft.cautions
    assert started.draft.choice.criteria[-1]["metric"] == SETS[name]


@pytest.mark.parametrize("name", ["it_tickets_synthetic/train-00000-of-00001.csv",
                                  "self_instruct_human/data/seed_tasks.jsonl",
                                  pytest.param("nlupp/hotels", marks=NIGHTLY)])  # fmt: skip
def test_what_the_printed_commands_publish_becomes_a_version(name: str, tmp_path: Path) -> None:
    started = drafted(name, tmp_path)
    made = version_of(started, tmp_path)
    assert made.rejections == ()
    assert made.split.holdout.height >= 0.9 * started.draft.choice.rows


@pytest.mark.parametrize(
    "name", ["abcd_guidelines/abcd_sample.json", pytest.param("bbh/navigate.json", marks=NIGHTLY)]
)
def test_what_no_version_can_be_judged_by_is_cautioned_of(name: str, tmp_path: Path) -> None:
    assert any(CAUTIONED[name] in caution for caution in drafted(name, tmp_path).draft.cautions)
