"""The frame of the command: one table, lazy commands, quick help, usage errors."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
from tunewheel_cli.frame import app, load
from tunewheel_cli.table import BY_WORDS, NOUNS, below
from typer.testing import CliRunner, Result

HEAVY = ("typer", "rich", "pydantic", "httpx", "asyncio", "torch", "aiokafka", "tunewheel_contracts")

KAFKA = "bootstrap_servers"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def loaded(*words: str) -> list[str]:
    """Return the modules of ``HEAVY`` that a process of the command imports."""
    program = (
        f"import sys; sys.argv = {['tunewheel', *words]!r}\n"
        "from tunewheel_cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert "Usage: tunewheel" in done.stdout
    return json.loads(done.stderr.replace("'", '"'))


def test_help_on_which_command_there_is_imports_no_library() -> None:
    assert loaded("--help") == loaded() == loaded("model", "--help") == []


def test_only_what_looks_after_an_installation_asks_for_kafka() -> None:
    asking = {words for words, entry in BY_WORDS.items() if any(p.name == KAFKA for p in load(entry).params)}
    assert asking == {"up", "doctor", "admin topics", "admin acls", "admin signing-keys"}


def test_the_root_lists_every_noun_with_its_verbs_in_panels() -> None:
    told = run("--help").stdout
    for noun in NOUNS:
        (line,) = (line for line in told.splitlines() if line.split()[:1] == [noun])
        assert line.endswith(", ".join(below(noun)))
    assert "Every day:" in told
    assert "Exit codes: 0 done" in told


@pytest.mark.parametrize("words", BY_WORDS)
def test_every_command_of_the_table_explains_itself(words: str) -> None:
    told = run(*words.split(), "--help").stdout
    assert told.startswith(f"Usage: tunewheel {words} ")
    assert "<bool>" not in told
    assert "  --json " in told or words.startswith(("plan", "demo"))
    assert load(BY_WORDS[words]).name == words.split()[-1]


def test_the_version_is_that_of_the_distribution() -> None:
    assert run("--version").stdout == f"tunewheel {version('tunewheel-cli')}\n"


@pytest.mark.parametrize(
    ("words", "field", "part"),
    [
        (("status", "--nope"), "--nope", "No such option"),
        (("publish",), "path", "Missing argument"),
        (("run", "pausee", "r"), None, "Did you mean 'pause'?"),
        (("statuss",), None, "Did you mean 'status'?"),
    ],
)
def test_errors_of_the_command_line_are_json_where_json_is_asked_for(
    words: tuple[str, ...], field: str | None, part: str
) -> None:
    said = run(*words, "--json")
    told = json.loads(said.stdout)
    assert (said.exit_code, told["field"], said.stderr) == (2, field, "")
    assert part in told["error"]
    assert part in run(*words).stderr


def test_words_are_completed_without_loading_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_WORDS", "tunewheel model p")
    monkeypatch.setenv("COMP_CWORD", "2")
    said = CliRunner().invoke(app, env={"_TUNEWHEEL_COMPLETE": "complete_bash"})
    assert said.stdout.split() == ["promote", "pin"]
