"""From a CSV to a model that answers, as somebody walks who types what each command says is next."""

from __future__ import annotations

import csv
import shlex
from pathlib import Path
from typing import Any

import pytest
from tunewheel_testing.tiny import write_tiny_model

from ..integration.test_up import Shell, options
from ..integration.wheels import log_tails
from . import small_desk

pytestmark = [pytest.mark.e2e, pytest.mark.model]

TINY, SMOLLM2 = "tiny", "smollm2"
SERVICES = ("engine", "ingest", "curate", "train", "eval", "registry", "gateway", "monitor", "console")


def write_csv(file: Path, columns: tuple[str, str] = ("question", "team")) -> int:
    """Write what a team may have: questions, and which team answered each. Return the number of rows."""
    rows = [(one["body"], one["answer"]["category"]) for one in small_desk.tickets()]
    with file.open("w", encoding="utf-8", newline="") as target:
        csv.writer(target).writerows([columns, *rows])
    return len(rows)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command line in an empty folder, of somebody without any settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    regression = small_desk.cut_regression_set(tmp_path / "published")
    shell = Shell(tmp_path / "var", cwd=tmp_path, TUNEWHEEL_EVAL_REGRESSION_SET=str(regression))
    yield shell
    shell.run("down")


def walk(shell: Shell, tmp_path: Path, base: str = TINY) -> tuple[dict[str, Any], dict[str, Any]]:
    """Walk from a CSV to a model that answers; return the turn and the answer. The wheel goes on running."""
    rows = write_csv(tmp_path / "tickets.csv")
    # Its context holds a ticket, byte by byte.
    tiny = ["--base-model", str(write_tiny_model(tmp_path / "base", context=2048))] if base == TINY else []
    drafted = shell.run("init", "tickets.csv", *tiny)
    assert drafted["power"]["decidable"], drafted
    begin, *steps = [shlex.split(line)[1:] for line in drafted["next"]]
    assert begin == ["up", "--detach"]
    shell.run("up", *options(*SERVICES), *tiny)
    try:
        declare, publish, wait = steps[0], [word.replace("NAME", "me") for word in steps[1]], steps[2]
        assert (declare[:2], publish[0], wait[:2]) == (["project", "declare"], "publish", ["turn", "wait"])
        shell.run(*declare)
        assert shell.run(*publish)["published"] == rows
        told = shell.run(
            "turn", "wait", "--project", "tickets", "--timeout", f"{small_desk.PATIENCE_SECONDS:.0f}"
        )
        assert (told["outcome"], told["reason"]) == ("promoted", "count"), told
        answer = shell.run("ask", "The battery of my bike does not fill.", "--project", "tickets")
    except BaseException as error:
        error.add_note(log_tails(shell.var))
        raise
    assert answer["model"] == told["model_id"], "what was trained answers"
    return told, answer


@pytest.mark.nightly("models")
@pytest.mark.parametrize("base", [TINY, SMOLLM2])
def test_a_stranger_comes_from_a_csv_to_a_tuned_answer(shell: Shell, tmp_path: Path, base: str) -> None:
    _, answer = walk(shell, tmp_path, base)
    if base == SMOLLM2:
        assert "battery" in answer["text"]
