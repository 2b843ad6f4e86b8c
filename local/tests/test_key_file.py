"""``tunewheel key``: a key is printed once, the file keeps its hash, and services take what was written."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from tunewheel_cli.frame import app
from tunewheel_contracts.principal import Principal
from tunewheel_local.places import Var
from tunewheel_local.run_state import RunState, started
from tunewheel_local.wheel_secrets import make_secrets
from tunewheel_runtime.identity import key_file
from tunewheel_runtime.identity.keys import read_keys
from tunewheel_runtime.identity.roles import Role
from typer.testing import CliRunner

runner = CliRunner()
GROUPS = "groups:\n  leads: {projects: [desk], roles: [reviewer]}\n"

ADD, LIST, ROTATE, REVOKE = (("admin", "key-file", action) for action in ("add", "list", "rotate", "revoke"))


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Var:
    monkeypatch.setenv("TUNEWHEEL_VAR", str(tmp_path / "var"))
    monkeypatch.delenv("TUNEWHEEL_API_KEYS_FILE", raising=False)
    return Var(tmp_path / "var")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def run(*arguments: object, code: int = 0) -> str:
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return (result.stderr if code else result.stdout).strip()


def test_a_key_is_printed_once_and_only_its_hash_is_kept(file: Path) -> None:
    key = run(*ADD, "help desk", "--role", "publisher", "--role", "application", "-p", "desk",
              "--file", file)  # fmt: skip
    assert key.startswith("tw-")
    assert file.stat().st_mode & 0o777 == 0o600
    assert key not in file.read_text()
    ring = read_keys(file)
    caller = ring.caller(Principal(name="help desk"))
    assert ring.find(key) == caller.principal
    assert caller.may(Role.PUBLISHER, "desk")
    assert not caller.may(Role.PUBLISHER, "another")
    assert not caller.may(Role.OPERATOR, "desk")
    told = run(*LIST, "--file", file)
    assert "help desk" in told
    assert key not in told
    (entry,) = json.loads(run(*LIST, "--file", file, "--json"))["keys"]
    assert entry == {
        "name": "help desk", "roles": ["publisher", "application"], "projects": ["desk"], "groups": [],
        "limits": None,
        "keys": 1,
    }  # fmt: skip


def test_a_key_is_changed_with_and_without_a_time_of_both(file: Path) -> None:
    options = ("--file", file)
    first = run(*ADD, "a", "--role", "viewer", *options)
    second = json.loads(run(*ROTATE, "a", "--keep-old", "--json", *options))["key"]
    assert read_keys(file).find(first) == read_keys(file).find(second) == Principal(name="a")
    run(*REVOKE, "a", "--old", *options)
    assert (read_keys(file).find(first), read_keys(file).find(second)) == (None, Principal(name="a"))
    third = run(*ROTATE, "a", *options)
    assert (read_keys(file).find(second), read_keys(file).find(third)) == (None, Principal(name="a"))
    run(*REVOKE, "a", *options)
    assert read_keys(file).own == {}


def test_what_the_file_says_besides_stays(file: Path) -> None:
    file.write_text(
        f"# Kept by operations.\n# Ask them.\n{GROUPS}keys:  # lost\n  by-group: {{sha256: []}}\n"
    )
    file.chmod(0o640)
    run(*ADD, "lead", "--group", "leads", "--file", file)
    text = file.read_text()
    assert text.startswith("# Kept by operations.\n# Ask them.\nkeys:")
    assert "lost" not in text
    assert file.stat().st_mode & 0o777 == 0o640, "who reads the file may go on reading it"
    caller = read_keys(file).caller(Principal(name="lead"))
    assert caller.may(Role.REVIEWER, "desk")
    assert not caller.may(Role.APPLICATION), "a group's key has no role of its own"
    assert yaml.safe_load(text)["keys"]["by-group"] == {"sha256": []}


def test_json_stays_json_and_a_link_stays_a_link(tmp_path: Path) -> None:
    (real := tmp_path / "real.json").write_text('{"keys": {}}')
    (link := tmp_path / "link.json").symlink_to(real)
    run(*ADD, "a", "--role", "viewer", "--file", link)
    assert link.is_symlink()
    assert list(json.loads(real.read_text())["keys"]) == ["a"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "b"), "--role: say what the key may do"),
        (
            ("add", "b", "--role", "admin"),
            "--role: is not one of the known values; give 'viewer', 'publisher'",
        ),
        (("add", "b", "--role", "viewer", "--project", "No Slug"), "--project: "),
        (("add", "b", "--group", "nope"), "--group: 'nope' is no group of"),
        (("add", "", "--role", "viewer"), "NAME: "),
        (("add", "a", "--role", "viewer"), "NAME: 'a' has a key already; `tunewheel key rotate` changes it"),
        (("rotate", "nobody"), "NAME: nobody is called 'nobody' in"),
        (("revoke", "nobody"), "choose from a"),
    ],
)
def test_what_cannot_be_is_named_and_nothing_is_written(
    file: Path, arguments: tuple[str, ...], words: str
) -> None:
    run(*ADD, "a", "--role", "viewer", "--file", file)
    before = file.read_bytes()
    assert words in run(*ADD[:2], *arguments, "--file", file, code=2)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []


def test_a_file_that_is_wrong_is_not_touched(file: Path) -> None:
    file.write_text("keys: {a: {sha256: short}}\n")
    assert "keys.a.sha256" in run(*ADD, "b", "--role", "viewer", "--file", file, code=1)
    assert file.read_text() == "keys: {a: {sha256: short}}\n"
    assert "there is no" in run(*LIST, "--file", file.with_name("nope.yaml"), code=2)


def test_commands_at_once_lose_no_key(file: Path) -> None:
    names = [f"key-{number}" for number in range(16)]

    def add(name: str) -> str:
        return key_file.add(file, name, roles=("viewer",), projects=(), groups=())

    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(add, names))
    ring = read_keys(file)
    assert [ring.find(key) for key in keys] == [Principal(name=name) for name in names]


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    told = run(
        "admin",
        "key-file",
        "add",
        "a",
        "--role",
        "viewer",
        "--file",
        tmp_path / "nowhere" / "keys.yaml",
        code=1,
    )
    assert "keys.yaml cannot be written: " in told


def test_the_wheels_own_file_is_changed_by_default(var: Var) -> None:
    assert "run `tunewheel up` first" in run(*ADD, "b", "--role", "viewer", code=2)
    assert "`tunewheel up` makes its key" in run("key", "show", code=2)
    made = make_secrets(var, pseudonyms=True)
    assert run("key", "show") == made.api_key.get_secret_value()
    added = run(*ADD, "desk", "--role", "application")
    assert read_keys(var.keys_file).find(added) == Principal(name="desk")
    assert "local" in run(*LIST)


def test_the_wheels_own_key_is_not_taken_from_under_it(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    assert "the wheel's own key, which it cannot run without" in run(
        "admin", "key-file", "revoke", "local", code=2
    )
    assert "cannot run without" in run(
        "admin", "key-file", "revoke", "local", "--file", var.keys_file, code=2
    )
    RunState(
        supervisor_pid=os.getpid(), supervisor_started=started(os.getpid()) or 0.0, phase="running",
        bootstrap_servers="",
    ).write(var.run_file)  # fmt: skip
    assert "stop it with `tunewheel down` first" in run(*ROTATE, "local", code=2)
    var.run_file.unlink()
    assert run(*ROTATE, "local") == run("key", "show")


def test_help_lists_the_roles_that_there_are() -> None:
    told = " ".join(run(*ADD, "--help").replace("│", " ").split())
    for role in Role:
        assert role.value in told
