"""What curate writes is what ``tunewheel dataset`` shows, compares and exports."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_cli.frame import app
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.formats.dataset import ChatExample, ChatMessage, DatasetManifest, PreferencePair
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import Trust
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.records.log import rows_of
from tunewheel_curate.versions.versioning import write_version
from tunewheel_local.kafka.broker import run_async
from tunewheel_runtime.service import Delivery, Position
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.console import KEY, Console
from tunewheel_testing.story import Story
from typer.testing import CliRunner

SUBJECTS = ("commuter", "racer", "tandem", "cargo bike", "trailer", "folding bike", "tricycle", "e-bike")
FAULTS = ("is silent", "rings by itself", "fell off on the road", "came in the wrong colour", "rattles")
SPEC = ProjectSpec.model_validate(
    {
        "project": "shop",
        "base_model": "some/model",
        "task": {
            "system_prompt": "Answer as JSON.",
            "label_field": "category",
            "output_schema": {"type": "object", "properties": {"category": {"enum": ["bell", "horn"]}}},
        },
        "dataset": {"formats": {"documents": {"chunks": {"enabled": True}}}},
        "criteria": [{"metric": "valid_output", "minimum": 0.5}],
    }
)


def records() -> list[RecordIngested]:
    """Forty tickets, one of them a thread and all with an answer to avoid, and a document."""

    def record(number: int, kind: RecordKind, text: str, **fields: Any) -> RecordIngested:
        return RecordIngested(
            project="shop", record_id=content_id("rec", text), kind=kind, source_id=f"s-{number}",
            source_event_id=f"event-{number}", group=f"g-{number}", input=text, trust=Trust.EXPERT, **fields,
        )  # fmt: skip

    earlier = (
        ChatMessage(role="user", content="Hello, is anybody there?"),
        ChatMessage(role="assistant", content="Yes."),
    )
    made: list[RecordIngested] = []
    for number, (subject, fault) in enumerate((s, f) for s in SUBJECTS for f in FAULTS):
        right, wrong = ("bell", "horn")[number % 2], ("horn", "bell")[number % 2]
        made.append(
            record(
                number,
                RecordKind.TICKET,
                f"Order {number * 7919}: the {right} of my {subject} {fault}, what now?",
                output=json.dumps({"category": right}),
                rejected_output=json.dumps({"category": wrong}),
                history=earlier if number == 7 else (),
            )
        )
    return [*made, record(99, RecordKind.DOCUMENT, "Oil every bell once a year, before the winter comes.")]


def written(count: int, given: Inputs, folder: Path, store: ObjectStore) -> tuple[DatasetManifest, Build]:
    deliveries = [
        Delivery(new_event(data, source="/test"), Position("record.ingested", 0, offset), {})
        for offset, data in enumerate(records()[-count:])
    ]
    made = build(rows_of(deliveries), SPEC, given)
    assert made.rejections == ()
    manifest = write_version(made, SPEC, folder)
    run_async(store.put_directory(f"datasets/{manifest.dataset_id}", folder))
    return manifest, made


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    return ObjectStore(tmp_path_factory.mktemp("store").as_uri())


@pytest.fixture(scope="module")
def version(store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[DatasetManifest, Build]:
    return written(31, Inputs(), tmp_path_factory.mktemp("first"), store)


class Shell:
    """Runs ``tunewheel dataset`` against a console that has read of the versions of ``shop``."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def know(self, manifest: DatasetManifest) -> None:
        place, store = f"datasets/{manifest.dataset_id}/manifest.json", self.console.store
        ref = run_async(store.put(place, run_async(store.read(place)) or b""))
        told = {"manifest": ref, "counts": manifest.counts, "funnel": manifest.funnel}
        story = Story("shop")
        story.version(story.request(manifest.dataset_id), manifest.dataset_id, **told)
        self.console.read(*story.events)

    def run(self, *arguments: str) -> str:
        env = {"TUNEWHEEL_URL": self.console.url, "TUNEWHEEL_API_KEY": KEY}
        result = CliRunner().invoke(app, ("dataset", *arguments, "-p", "shop"), env=env)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def shell(store: ObjectStore, version: tuple[DatasetManifest, Build], tmp_path: Path) -> Generator[Shell]:
    console = Console(tmp_path, store)
    with console.serving():
        shell = Shell(console)
        shell.know(version[0])
        yield shell


def test_a_built_version_is_shown(shell: Shell, version: tuple[DatasetManifest, Build]) -> None:
    manifest, made = version
    told = json.loads(shell.run("show", manifest.dataset_id, "--json"))
    train, held = (dict(side["label"].drop_nulls().value_counts().iter_rows()) for side in
                   (made.split.train, made.split.holdout))  # fmt: skip
    assert told["labels"] == {
        name: {"train": train[name], "holdout": held[name]} for name in ("bell", "horn")
    }
    assert DatasetManifest.model_validate(told["manifest"]) == manifest
    shown = shell.run("show", manifest.dataset_id)
    for stage in manifest.funnel:
        assert stage.stage in shown
    assert "documents.sections" in shown


@pytest.mark.parametrize("form", ["jsonl", "parquet", "hf"])
def test_a_built_version_is_exported_as_it_was_written(
    shell: Shell, version: tuple[DatasetManifest, Build], form: str, tmp_path: Path
) -> None:
    manifest, made = version
    folder = tmp_path / "out"
    shell.run("export", manifest.dataset_id, "--to", str(folder), "--format", form)
    for name, frame in (("train", made.split.train), ("holdout", made.split.holdout)):
        rows = [ChatExample.model_validate(row) for row in exported(folder, name, form)]
        # Where a held-out row comes from is no part of its example: it is added when the version is written.
        assert [row.model_copy(update={"source": None, "language": None}) for row in rows] == [
            ChatExample.model_validate(row) for row in frame.to_dicts()
        ]
    assert made.preferences is not None
    pairs = [PreferencePair.model_validate(row) for row in exported(folder, "preferences", form)]
    assert pairs == [PreferencePair.model_validate(row) for row in made.preferences.to_dicts()]
    assert len(pairs) == manifest.counts.preferences >= 20
    assert DatasetManifest.model_validate_json((folder / "manifest.json").read_bytes()) == manifest


def exported(folder: Path, name: str, form: str) -> list[dict[str, Any]]:
    if form == "hf":
        import datasets

        folder = folder / name if name == "preferences" else folder
        loaded = datasets.load_from_disk(str(folder))
        return (loaded if name == "preferences" else loaded[name]).to_list()
    if form == "parquet":
        return pl.read_parquet(folder / f"{name}.parquet").to_dicts()
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines()]


def test_two_built_versions_are_compared(
    shell: Shell, store: ObjectStore, version: tuple[DatasetManifest, Build], tmp_path: Path
) -> None:
    before, made = version
    after, _ = written(41, Inputs(memory=made.memory), tmp_path / "second", store)
    shell.know(after)
    told = json.loads(shell.run("diff", before.dataset_id, after.dataset_id, "--json"))
    assert sum(told["added"].values()) == 10
    assert (told["removed"], told["moved"], told["answers_changed"], told["spec"]) == ({}, {}, 0, {})
    assert told["counts"]["records"] == [31, 41]
    shown = shell.run("diff", before.dataset_id, after.dataset_id)
    assert f"{before.dataset_id} → {after.dataset_id}" in shown
