"""The file of public keys by which services sign commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_cli.frame import app
from typer.testing import CliRunner


def run(*words: str | Path, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["admin", "signing-keys", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.output


def test_a_key_is_printed_once_and_is_not_retired_where_no_kafka_tells_the_ends(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    made = json.loads(run("add", "console", "--file", file))
    assert made["d"] not in file.read_text()
    run("add", "eval", "--file", file)
    assert [line.split()[1] for line in run("list", "--file", file).splitlines()] == ["console", "eval"]
    kept = file.read_text()
    assert "no wheel runs" in run("retire", made["kid"], "--file", file, "--var", tmp_path, code=2)
    assert file.read_text() == kept


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("add", "nobody"), 1, "publishes no commands"),
        (("add",), 2, "NAME: say which service"),
        (("list",), 1, "cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said(words: tuple[str, ...], code: int, told: str, tmp_path: Path) -> None:
    assert told in run(*words, "--file", tmp_path / "keys.json", code=code)
