"""Dataset versions on the terminal: shown, compared, exported."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_console.control import declarations
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest, ExampleFormat, PreferencePair
from tunewheel_local.kafka.broker import run_async
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.console import Console
from tunewheel_testing.story import Story, example


def chat(number: int, *, answer: str = "an answer", label: str = "bell") -> dict[str, Any]:
    turns = [("system", "Help."), ("user", f"Question {number}?"), ("assistant", answer)]
    messages = [{"role": role, "content": content} for role, content in turns]
    row = {"example_id": f"ex-{number}-{answer}", "messages": messages, "label": label, "group": f"g{number}"}
    return ChatExample.model_validate(row | {"trust": "expert", "record_ids": [f"rec-{number}"]}).model_dump(
        mode="json"
    )


def put(store: ObjectStore, name: str, train: list[dict[str, Any]], holdout: list[dict[str, Any]],
        **changes: Any) -> dict[str, Any]:  # fmt: skip
    """Store a version; return what its event tells of it."""
    pairs = [PreferencePair.model_validate(example("preference-pair", "correction")).model_dump(mode="json")]

    async def write() -> dict[str, Any]:
        async def parquet(file: str, rows: list[dict[str, Any]]) -> ArtifactRef:
            buffer = BytesIO()
            pl.DataFrame(rows).write_parquet(buffer)
            return await store.put(f"datasets/{name}/{file}.parquet", buffer.getvalue())

        manifest = DatasetManifest.model_validate(example("dataset-manifest", "preliminary")).model_copy(
            update={
                "dataset_id": name,
                "train": await parquet("train", train),
                "holdout": await parquet("holdout", holdout),
                "preferences": await parquet("preferences", pairs),
                "card": await store.put(f"datasets/{name}/card.md", f"# Dataset {name}\n".encode()),
                **changes,
            }
        )
        ref = await store.put(f"datasets/{name}/manifest.json", manifest.model_dump_json().encode())
        return {
            "manifest": ref,
            "counts": manifest.counts,
            "funnel": manifest.funnel,
            "preliminary": "too few",
        }

    return run_async(write())


@pytest.fixture
def versions(console: Console) -> None:
    store, story = console.store, Story("helpdesk")
    story.say("project.declared")
    counts = DatasetManifest.model_validate(example("dataset-manifest", "preliminary")).counts
    one = put(store, "ds-one", [chat(n) for n in range(4)], [chat(9)])
    two = put(
        store,
        "ds-two",
        [chat(0), chat(1, answer="another answer"), chat(5, label="horn")],
        [chat(9), chat(2)],
        counts=counts.model_copy(update={"records": 400, "formats": {ExampleFormat.ANSWER: 5}}),
    )
    for name, told in (("ds-one", one), ("ds-two", two)):
        story.version(story.request(name), name, **told)
    console.read(*story.events)


@pytest.fixture
def ask(run: Any) -> Any:
    """Run a command of ``dataset`` in the project; return the exit code, the output and the errors."""

    def ask(*words: str, code: int = 0) -> tuple[int, str, str]:
        done = run("dataset", *words, "-p", "helpdesk", code=code)
        return done.exit_code, done.stdout, done.stderr

    return ask


@pytest.mark.usefixtures("versions")
def test_a_version_is_shown_with_its_funnel_and_labels(ask: Any) -> None:
    code, out, _ = ask("show", "ds-one")
    assert code == 0
    for words in ("ds-one", "preliminary:", "duplicates", "exact 21", "bell", "replay:", "CC-BY-SA-3.0"):
        assert words in out, words
    code, out, _ = ask("show", "ds-one", "--json")
    told = json.loads(out)
    assert told["dataset_id"] == "ds-one"
    assert told["labels"] == {"bell": {"train": 4, "holdout": 1}}
    assert told["manifest"]["funnel"][0] == {
        "stage": "normalise",
        "entered": 320,
        "left": 318,
        "reasons": {"near_empty": 2},
    }


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("words", [("--json",), ()], ids=["JSON", "text"])
def test_what_a_console_logs_meanwhile_is_no_part_of_the_output(
    words: tuple[str, ...], ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(declarations, "SIMULATION_SECONDS", 0.0)  # as on a busy machine
    monkeypatch.setattr(declarations, "_kept", {})
    _, out, told = ask("show", "ds-one", *words)
    assert "power_left_out" in told
    assert "power_left_out" not in out
    assert not words or json.loads(out)["power"] is None


@pytest.mark.usefixtures("versions")
def test_a_difference_names_what_changed(ask: Any) -> None:
    code, out, _ = ask("diff", "ds-one", "ds-two", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["added"] == {"train": 2}
    assert told["removed"] == {"train": 2}
    assert told["moved"] == {"train → holdout": 1}
    assert told["answers_changed"] == 1
    assert told["changed_questions"] == ["Question 1?"]
    assert told["labels"] == {"bell": [4, 2], "horn": [None, 1]}
    assert told["counts"] == {"records": [320, 400], "formats": [{}, None], "formats.answer": [None, 5]}
    assert told["spec"] == told["funnel"] == {}
    code, out, _ = ask("diff", "ds-one", "ds-two")
    assert code == 0
    assert "moved train → holdout: 1" in out
    assert "Question 1?" in out


@pytest.mark.usefixtures("versions")
def test_a_version_does_not_differ_from_itself(ask: Any) -> None:
    told = json.loads(ask("diff", "ds-one", "ds-one", "--json")[1])
    assert not any(told[name] for name in told if name not in ("before", "after"))
    assert "nothing differs" in ask("diff", "ds-one", "ds-one")[1]


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_an_export_is_read_back(form: str, tmp_path: Path, ask: Any) -> None:
    folder = tmp_path / "out"
    code, out, _ = ask("export", "ds-one", "--to", str(folder), "--format", form)
    assert code == 0
    assert "4 train, 1 holdout, 1 preferences" in out
    read = pl.read_ndjson if form == "jsonl" else pl.read_parquet
    rows = read(folder / f"train.{form}").to_dicts()
    assert [ChatExample.model_validate(row) for row in rows] == [
        ChatExample.model_validate(chat(n)) for n in range(4)
    ]
    assert json.loads((folder / "manifest.json").read_text())["dataset_id"] == "ds-one"


@pytest.mark.usefixtures("versions")
def test_an_export_for_hugging_face_loads_from_disk(tmp_path: Path, ask: Any) -> None:
    import datasets

    code, out, _ = ask("export", "ds-one", "--to", str(tmp_path / "hf"), "--format", "hf", "--json")
    assert code == 0
    assert json.loads(out)["rows"] == {"train": 4, "holdout": 1, "preferences": 1}
    loaded = datasets.load_from_disk(str(tmp_path / "hf"))
    assert {name: split.num_rows for name, split in loaded.items()} == {"train": 4, "holdout": 1}
    assert loaded["train"][0]["messages"][1] == {"role": "user", "content": "Question 0?"}
    assert datasets.load_from_disk(str(tmp_path / "hf" / "preferences")).num_rows == 1


@pytest.mark.usefixtures("versions")
def test_a_folder_in_use_is_left_alone(tmp_path: Path, ask: Any) -> None:
    (tmp_path / "mine").write_text("precious")
    code, _, errors = ask("export", "ds-one", "--to", str(tmp_path), code=1)
    assert code == 1
    assert "is not an empty folder" in errors
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.usefixtures("versions")
@pytest.mark.parametrize("form", ["jsonl", "parquet", "hf"])
def test_a_folder_that_cannot_be_made_is_told(form: str, tmp_path: Path, ask: Any) -> None:
    (tmp_path / "file").write_text("precious")
    code, _, errors = ask(
        "export", "ds-one", "--to", str(tmp_path / "file" / "below"), "--format", form, code=1
    )
    assert code == 1
    assert "--to:" in errors
    assert "cannot be written (Not a directory)" in errors


@pytest.mark.usefixtures("versions")
def test_an_unknown_version_is_told(ask: Any) -> None:
    for command in (("show", "ds-three"), ("diff", "ds-one", "ds-three"), ("export", "ds-three")):
        assert "ds-three" in ask(*command, code=1)[2]
