"""``tunewheel run export``: what the exporting process says, as output, errors and exit codes."""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tunewheel_cli import model_export
from tunewheel_cli.commands.run import describe
from tunewheel_cli.frame import app
from tunewheel_cli.model_export import NotExported, fetch, run_export
from tunewheel_client import Client
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_local.connection import InvalidOption
from tunewheel_local.kafka.broker import run_async
from tunewheel_testing.console import KEY, Console
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.story import Story, example
from typer.testing import CliRunner

PARITY = {"prompts": 20, "mean_difference": 0.00021, "tolerance": 0.01, "same_choice": 1.0}


def speaking(script: str) -> list[str]:
    """A process that speaks as the export does."""
    return [sys.executable, "-c", "import json, os, sys\n" + textwrap.dedent(script)]


def test_steps_and_result_are_passed_on() -> None:
    steps: list[tuple[str, int, int]] = []
    script = """
        print(json.dumps({"step": "load", "done": 0, "of": 5}))
        print(json.dumps({"step": "merge", "done": 2, "of": 5}))
        print(json.dumps({"directory": "out"}))
    """
    told = run_export(speaking(script), on_step=lambda *step: steps.append(step))
    assert steps == [("load", 0, 5), ("merge", 2, 5)]
    assert told == {"directory": "out"}


@pytest.mark.parametrize(
    ("code", "line", "kind", "said"),
    [
        (1, "export: run-none has no manifest", NotExported, "run-none has no manifest"),
        (2, "tunewheel_train.exporting.export: error: --dtype q8_0: no", InvalidOption, "--dtype q8_0: no"),
        (5, "export: cannot read it", TransientError, "cannot read it"),
        (3, "MemoryError", NotExported, r"ended with exit code 3, nothing was written \(MemoryError\)"),
    ],
)
def test_every_ending_has_its_error(code: int, line: str, kind: type[Exception], said: str) -> None:
    script = f"print('a warning', {line!r}, sep='\\n', file=sys.stderr); sys.exit({code})"
    with pytest.raises(kind, match=said):
        run_export(speaking(script), on_step=lambda *_: None)


def test_a_killed_export_is_told() -> None:
    script = "import signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(NotExported, match="ended with signal 9, nothing was written"):
        run_export(speaking(script), on_step=lambda *_: None)


def test_a_process_that_says_nothing_wrote_nothing() -> None:
    with pytest.raises(NotExported, match="exit code 0, nothing was written"):
        run_export(speaking("pass"), on_step=lambda *_: None)


FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


@pytest.fixture
def manifest(console: Console) -> RunManifest:
    """A completed run of the wheel, and the version that it trained on; one row's record was erased."""
    store, story = console.store, Story("helpdesk")
    refs = tuple(run_async(store.put(f"adapters/m/{name}", data)) for name, data in FILES.items())
    rows = [{"example_id": f"ex-{n}", "messages": [{"role": "user", "content": f"q{n}"}], "group": "g",
             "trust": "expert", "label": "a", "record_ids": [f"rec-{n}"]} for n in (2, 1)]  # fmt: skip
    _, version = run_async(
        put_dataset(store, ProjectSpec.model_validate(example("project.declared")["spec"]), train=rows)
    )
    run = RunManifest.model_validate(example("run-manifest", "planned-and-measured"))
    adapter = run.adapter.model_copy(update={"path": "adapters/m", "files": refs})
    found = run.model_copy(
        update={"run_id": "run-ds-1", "project": "helpdesk", "dataset_id": "ds-1", "adapter": adapter}
    )
    ref = run_async(store.put("runs/run-ds-1/manifest.json", found.model_dump_json().encode()))
    story.say("project.declared")
    story.version(story.request(), "ds-1", manifest=version)
    story.train("completed", "ds-1", like="planned", manifest=ref)
    console.read(*story.events)
    return found


def test_the_command_exports_what_it_fetched_and_prints_what_was_written(
    run: Any, manifest: RunManifest, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    given: list[str] = []

    def export(command: list[str], **_: object) -> dict[str, object]:
        given[:] = command[3:-2]
        fetched = Path(command[-2])
        assert RunManifest.model_validate_json((fetched / "manifest.json").read_bytes()) == manifest
        dataset = DatasetManifest.model_validate_json((fetched / "dataset.json").read_bytes())
        assert dataset.spec.project == manifest.project
        assert {one.name: one.read_bytes() for one in (fetched / "files").iterdir()} == FILES
        lines = (fetched / "examples.jsonl").read_text().splitlines()
        assert [json.loads(line)["messages"][0]["content"] for line in lines] == ["q1", "q2"]
        return {"directory": command[-1], "format": "gguf", "dtype": "q4_k_m", "parity": PARITY}

    monkeypatch.setattr(model_export, "run_export", export)
    arguments = ["run", "export", "run-ds", "out", "-p", "helpdesk", "--format", "gguf", "--dtype", "q4_k_m"]
    arguments += ["--llama-cpp", "clone"]
    result = run(*arguments)
    assert "wrote gguf in q4_k_m to out" in result.stdout
    assert "differ by 0.00021 on average (0.01 allowed); 100.0%" in result.stdout
    assert given == ["--format", "gguf", "--dtype", "q4_k_m", "--llama-cpp", "clone", "--"]
    told = json.loads(run(*arguments, "--json").stdout)
    assert told["parity"] == PARITY
    assert describe(told) == result.stdout.strip()
    assert not list(home.glob(".out*")), "what was fetched is deleted"


def test_what_cannot_be_exported_is_told_before_or_leaves_nothing(
    run: Any, manifest: RunManifest, console: Console, home: Path
) -> None:
    export = ("run", "export", "latest", "out", "-p", "helpdesk")
    assert "safetensors takes float32" in run(*export, "--dtype", "q8_0", code=2).stderr
    (home / "out").mkdir()
    (home / "out" / "mine.txt").write_text("mine")
    assert "not an empty folder" in run(*export, code=1).stderr
    run_async(console.store.replace("adapters/m/adapter_config.json", b"damaged"))
    export = ("run", "export", "latest", "elsewhere", "-p", "helpdesk")
    assert "adapter_config.json of run-ds-1 is damaged" in run(*export, code=1).stderr
    assert "has no run 'run-none'" in run("run", "export", "run-none", "x", "-p", "helpdesk", code=1).stderr
    assert not (home / "elsewhere").exists()
    assert not list(home.glob(".elsewhere*"))


@pytest.mark.parametrize("between", ["/", "x//", "./", ""])
def test_a_manifest_writes_no_file_outside_the_folder(
    between: str, manifest: RunManifest, console: Console, tmp_path: Path
) -> None:
    (outside := tmp_path / "outside").write_bytes(b"mine")
    path = f"adapters/m/{between}{str(outside).lstrip('/') if between else ''}"
    ref = manifest.adapter.files[0].model_copy(update={"path": path})
    adapter = manifest.adapter.model_copy(update={"files": (ref,)})
    (folder := tmp_path / "fetched").mkdir()
    with Client(console.url, KEY) as client, pytest.raises(NotExported, match="is not below adapters/m"):
        fetch(client, manifest.model_copy(update={"adapter": adapter}), folder, lambda *_: None)
    assert outside.read_bytes() == b"mine"
    assert not (folder / "files").exists()


def test_without_the_train_package_the_command_says_where_to_run_it(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_export, "PACKAGE", "tunewheel_absent")
    result = run("run", "export", "run-1", "out", "-p", "helpdesk", "--json", code=1)
    assert "install tunewheel-train[worker]" in json.loads(result.stdout)["error"]


def test_an_unknown_format_is_a_wrong_option() -> None:
    result = CliRunner().invoke(app, ["run", "export", "run-1", "out", "--format", "onnx"])
    assert result.exit_code == 2
    assert "onnx" in result.stderr


def test_the_real_export_names_what_was_not_fetched(tmp_path: Path) -> None:
    command = [sys.executable, "-m", model_export.MODULE, "--", str(tmp_path / "none"), str(tmp_path / "out")]
    with pytest.raises(NotExported, match=r"manifest\.json"):
        run_export(command, on_step=lambda *_: None)
    assert not (tmp_path / "out").exists()
