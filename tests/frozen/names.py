"""A corpus of specs, recipes and events with the names that were derived from them when it was recorded.

    python -m tests.frozen.names tests/frozen/<name>/names.json

A dataset version, a run and an event are named by their contents. A library that adds a field must not rename
what is already on the log: the new field takes part in a name only where it differs from its default (see
``exclude_if`` in the contracts).
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from tunewheel_contracts.event import Event, decode_data, new_event
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Trust
from tunewheel_contracts.topics import BY_NAME
from tunewheel_curate.versions.versioning import dataset_id_of
from tunewheel_ingest.records import RECORD_OF
from tunewheel_train.runs.runs import plan_run

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "contracts" / "examples"
ROWS = "0" * 64


def names_of_spec(spec: dict[str, Any]) -> dict[str, str]:
    """Return every name that is derived from a project spec."""
    read = ProjectSpec.model_validate(spec)
    raw = json.loads((EXAMPLES / "dataset-manifest" / "valid" / "helpdesk.json").read_text())
    manifest = DatasetManifest.model_validate(raw).model_copy(update={"spec": read, "project": read.project})
    base = BaseModelRef(name=read.base_model, revision="sha256:" + ROWS)
    run = plan_run(manifest, manifest.train, base)
    return {
        "spec_sha256": read.sha256,
        "criteria_sha256": read.criteria_sha256,
        "dataset_id": dataset_id_of(read, ROWS),
        "run_id": run.run_id,
        "model_id": run.model_id,
    }


def names_of_event(kind: str, data: dict[str, Any]) -> dict[str, str]:
    """Return the id of an event and, where ingest makes a record of it, the record's."""
    event_class: type[Event] = BY_NAME[kind].event
    event = new_event(decode_data(event_class, json.dumps(data).encode()), source="/test")
    found = {"event_id": event.id}
    if "authority" in event_class.model_fields:  # What is older than signatures means what its data states.
        event = replace(event, data=event.data.model_copy(update={"authority": Trust.EXPERT}))
    make = RECORD_OF.get(event_class)
    if make is not None and (record := make(event)) is not None:
        found["record_id"] = record.record_id
    return found


def record(target: Path) -> None:
    """Write the corpus with the names that the version which is checked out derives."""
    specs = [
        yaml.safe_load(path.read_text())
        for path in (
            *sorted((EXAMPLES / "project-spec" / "valid").glob("*.json")),
            REPOSITORY / "examples" / "helpdesk" / "project.yaml",
            Path(__file__).parent / "rich.yaml",
        )
    ]
    events = [
        (path.parts[-3], json.loads(path.read_text()))
        for path in sorted(EXAMPLES.glob("*/valid/*.json"))
        if path.parts[-3] in BY_NAME
    ]
    corpus = {
        "specs": [{"spec": spec, "names": names_of_spec(spec)} for spec in specs],
        "events": [
            {"type": kind, "data": data, "names": names_of_event(kind, data)} for kind, data in events
        ],
    }
    target.write_text(json.dumps(corpus, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
