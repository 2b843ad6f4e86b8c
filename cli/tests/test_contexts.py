"""Which wheel a command means: contexts, logins, the folder of a wheel."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tunewheel_client.contexts import Context, put
from tunewheel_testing.console import KEY, Console
from tunewheel_testing.story import Story


@pytest.fixture
def alone(console: Console, run: Any, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A console that no variable names."""
    monkeypatch.delenv("TUNEWHEEL_URL")
    monkeypatch.delenv("TUNEWHEEL_API_KEY")
    story = Story("desk")
    story.say("project.declared")
    console.read(*story.events)
    return console


def test_without_a_wheel_a_command_says_what_to_do(alone: Console, run: Any) -> None:
    assert "tunewheel login URL" in run("project", "list", code=2).stderr
    assert "--var: no wheel with a console runs on" in run("project", "list", "--var", "nope", code=2).stderr


def test_the_wheel_on_a_folder_needs_no_login(alone: Console, run: Any, home: Path) -> None:
    context = Context.model_validate({"url": alone.url, "key": KEY, "name": "local"})
    put("local", context, file=home / "var" / "contexts.yaml")
    for options in ((), ("--var", "var"), ("--var", str(home / "var"))):
        assert "desk" in run("project", "list", *options).stdout
    assert run("key", "show").stdout.strip() == KEY
    shown = json.loads(run("context", "show", "--json").stdout)
    assert (shown["name"], shown["url"], shown["login"]) == ("local", alone.url, "key")


def test_a_key_of_the_environment_goes_before_the_folders_own(
    alone: Console, run: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = Context.model_validate({"url": alone.url, "key": KEY})
    put("local", context, file=home / "var" / "contexts.yaml")
    monkeypatch.setenv("TUNEWHEEL_API_KEY", "tw_nobodys")
    for options in ((), ("--var", "var")):
        run("project", "list", *options, code=7)


def test_the_file_of_a_folder_cannot_send_a_command_elsewhere(
    alone: Console, run: Any, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder may be a stranger's archive, and the key of the environment would go there."""
    put("local", Context(url="http://elsewhere.invalid"), file=home / "var" / "contexts.yaml")
    monkeypatch.setenv("TUNEWHEEL_API_KEY", KEY)
    for options in ((), ("--var", "var")):
        assert "and the wheel of a folder is on this machine" in run("run", "list", *options, code=2).stderr


def test_a_context_is_used_until_another_is_named(alone: Console, run: Any, home: Path) -> None:
    put("prod", Context.model_validate({"url": alone.url, "key": KEY}))
    put("down", Context.model_validate({"url": "http://127.0.0.1:9", "key": KEY, "project": "desk"}))
    assert run("project", "list", code=5).stderr.startswith("tunewheel: console: nothing answers at")
    assert "desk" in run("project", "list", "--context", "prod").stdout
    assert run("context", "use", "prod", "-p", "desk").stdout == f"prod: {alone.url}, project desk\n"
    assert "no such run" in run("run", "list").stdout
    assert "there is no 'nope'" in run("context", "use", "nope", code=2).stderr
    lines = run("context", "list").stdout.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [["*", "prod"], ["down", "http://127.0.0.1:9"]]


def test_a_key_logs_in_and_is_never_shown(alone: Console, run: Any, home: Path) -> None:
    said = run("login", alone.url, "--as", "prod", "-p", "desk", input=f"{KEY}\n")
    assert said.stdout.startswith(f"logged in to {alone.url} as lead")
    assert "no such run" in run("run", "list").stdout
    assert KEY not in said.output + run("context", "show").output + run("context", "list", "--json").output
    assert stat.S_IMODE((home / "contexts.yaml").stat().st_mode) == 0o600
    run("login", alone.url, "--as", "prod", input="tw_nobodys\n", code=7)
    assert "desk" in run("project", "list").stdout, "the login before holds"


def test_without_an_address_login_prints_a_link_for_the_browser(run: Any, console: Console) -> None:
    assert run("login").stdout.startswith(f"{console.url}/login?link=")
    assert set(json.loads(run("login", "--json").stdout)) == {"url", "expires_at"}
