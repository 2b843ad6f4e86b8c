"""A served console, and the command that talks to it from a person's folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tunewheel_cli.frame import app
from tunewheel_testing.console import KEY, Console
from typer.testing import CliRunner, Result

Run = Callable[..., Result]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder without contexts, on a machine without a wheel."""
    for name in ("URL", "API_KEY", "PROJECT", "CONTEXT", "VAR", "SECRETS_DIR", "HTTP_CAFILE"):
        monkeypatch.delenv(f"TUNEWHEEL_{name}", raising=False)
    monkeypatch.setenv("TUNEWHEEL_CONFIG", str(tmp_path / "contexts.yaml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def console(home: Path) -> Iterator[Console]:
    made = Console(home)
    with made.serving():
        yield made


@pytest.fixture
def run(console: Console, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command as somebody with every role; what it prints is the result's ``stdout``."""
    monkeypatch.setenv("TUNEWHEEL_URL", console.url)
    monkeypatch.setenv("TUNEWHEEL_API_KEY", KEY)

    def run(*words: str, code: int = 0, input: str | None = None) -> Result:
        done = CliRunner().invoke(app, words, input=input)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == code, done.output
        return done

    return run
