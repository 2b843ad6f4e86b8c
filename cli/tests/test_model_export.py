"""``tunewheel run export``: what the exporting process says, as output, errors and exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tunewheel_cli import model_export
from tunewheel_cli.commands.exporting import describe
from tunewheel_cli.frame import app
from tunewheel_cli.model_export import NotExported, run_export
from tunewheel_contracts.errors import TransientError
from tunewheel_local.connection import InvalidOption
from typer.testing import CliRunner

runner = CliRunner()
PARITY = {"prompts": 20, "mean_difference": 0.00021, "tolerance": 0.01, "same_choice": 1.0}


def speaking(script: str) -> list[str]:
    """A process that speaks as the export does."""
    return [sys.executable, "-c", "import json, os, sys\n" + textwrap.dedent(script)]


def test_steps_and_result_are_passed_on() -> None:
    steps: list[tuple[str, int, int]] = []
    script = """
        print(json.dumps({"step": "load", "done": 0, "of": 5}))
        print(json.dumps({"step": "merge", "done": 2, "of": 5}))
        print(json.dumps({"directory": os.environ["TUNEWHEEL_STORE_URL"]}))
    """
    told = run_export(
        speaking(script), store_url="file:///elsewhere", on_step=lambda *step: steps.append(step)
    )
    assert steps == [("load", 0, 5), ("merge", 2, 5)]
    assert told == {"directory": "file:///elsewhere"}


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
        run_export(speaking(script), store_url="memory://", on_step=lambda *_: None)


def test_a_killed_export_is_told() -> None:
    script = "import signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(NotExported, match="ended with signal 9, nothing was written"):
        run_export(speaking(script), store_url="memory://", on_step=lambda *_: None)


def test_a_process_that_says_nothing_wrote_nothing() -> None:
    with pytest.raises(NotExported, match="exit code 0, nothing was written"):
        run_export(speaking("pass"), store_url="memory://", on_step=lambda *_: None)


def test_the_command_prints_what_was_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given: dict[str, object] = {}

    def export(run_id: str, directory: Path, **options: object) -> dict[str, object]:
        given.update(options, run_id=run_id)
        return {"directory": str(directory), "format": "gguf", "dtype": "q8_0", "parity": PARITY}

    monkeypatch.setattr(model_export, "export_model", export)
    arguments = ["run", "export", "run-1", str(tmp_path / "out"), "--format", "gguf", "--dtype", "q8_0"]
    result = runner.invoke(app, [*arguments, "--store", "memory://"])
    assert result.exit_code == 0
    assert f"wrote gguf in q8_0 to {tmp_path / 'out'}" in result.stdout
    assert "differ by 0.00021 on average (0.01 allowed); 100.0%" in result.stdout
    assert given["store_url"] == "memory://"
    assert (given["run_id"], given["form"], given["dtype"]) == ("run-1", "gguf", "q8_0")
    told = json.loads(runner.invoke(app, [*arguments, "--json"]).stdout)
    assert told["parity"] == PARITY
    assert describe(told) == result.stdout.strip()


def test_without_the_train_package_the_command_says_where_to_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_export, "PACKAGE", "tunewheel_absent")
    result = runner.invoke(app, ["run", "export", "run-1", "out", "--json"])
    assert result.exit_code == 1
    assert "install tunewheel-train[worker]" in json.loads(result.stdout)["error"]


def test_an_unknown_format_is_a_wrong_option() -> None:
    result = runner.invoke(app, ["run", "export", "run-1", "out", "--format", "onnx"])
    assert result.exit_code == 2
    assert "onnx" in result.stderr


def test_the_real_export_names_a_run_that_is_not_there(tmp_path: Path) -> None:
    store = (tmp_path / "store").as_uri()
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "tunewheel_cli.main", "run", "export", "run-none", str(out), "--store", store],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "tunewheel: run-none has no manifest in the store" in done.stderr
    assert not out.exists()
