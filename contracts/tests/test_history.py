"""The checker on a real git repository: a removed field and a deleted schema fail, from the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from tunewheel_contracts.compatibility import main
from tunewheel_contracts.generation.schemas import FOLDER, all_schemas
from tunewheel_contracts.history import UnknownRef, base_commit, schemas_at


def _git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", "-C", str(root), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _commit(root: Path, message: str) -> str:
    _git(root, "add", "--all")
    _git(root, "commit", "--quiet", "--allow-empty", "-m", message)
    return _git(root, "rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    _git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    folder = tmp_path / FOLDER
    folder.mkdir(parents=True)
    for name, schema in all_schemas().items():
        (folder / f"{name}.json").write_text(json.dumps(schema))
    return tmp_path


def _edit(root: Path, name: str, **properties: object) -> None:
    path = root / FOLDER / f"{name}.json"
    schema = json.loads(path.read_text())
    schema["properties"] |= properties
    path.write_text(json.dumps(schema))


def test_without_a_commit_there_is_nothing_to_compare(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert base_commit(repository) is None
    assert main(["--root", str(repository)]) == 0
    assert "no earlier commit" in capsys.readouterr().out


def test_without_git_there_is_nothing_to_compare(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert base_commit(repository) is None


def test_the_first_commit_has_no_parent(repository: Path) -> None:
    _commit(repository, "first")
    assert base_commit(repository) is None
    assert main(["--root", str(repository)]) == 0


def test_on_main_the_parent_is_compared(repository: Path) -> None:
    first = _commit(repository, "first")
    _commit(repository, "second")
    assert base_commit(repository) == first


def test_on_a_branch_the_merge_base_is_compared(repository: Path) -> None:
    _commit(repository, "first")
    fork = _commit(repository, "second")
    _git(repository, "checkout", "--quiet", "-b", "feature")
    _commit(repository, "third")
    _commit(repository, "fourth")
    assert base_commit(repository) == fork


def test_the_schemas_of_an_earlier_commit_are_read(repository: Path) -> None:
    first = _commit(repository, "first")
    (repository / FOLDER / "scorecard.json").unlink()
    _commit(repository, "second")
    assert schemas_at(repository, first) == all_schemas()
    assert "scorecard" not in schemas_at(repository, "HEAD")


def test_a_field_that_the_models_no_longer_have_fails(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(repository, "train.failed", hint={"type": "string"})
    (repository / FOLDER / "run.abandoned.json").write_text('{"type": "object"}')
    _commit(repository, "before")
    assert main(["--root", str(repository), "--against", "HEAD"]) == 1
    errors = capsys.readouterr().err
    assert "incompatible: train.failed.hint: field removed" in errors
    assert "incompatible: run.abandoned: schema deleted" in errors


def test_fields_that_the_models_have_pass(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _commit(repository, "before")
    assert main(["--root", str(repository), "--against", "HEAD"]) == 0
    assert f"{len(all_schemas())} schemas" in capsys.readouterr().out


def test_a_commit_without_schemas_is_said(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _git(repository, "rm", "-r", "--quiet", "--cached", "--ignore-unmatch", ".")
    _git(repository, "commit", "--quiet", "--allow-empty", "-m", "empty")
    assert main(["--root", str(repository), "--against", "HEAD"]) == 0
    assert "has no schemas" in capsys.readouterr().out


def test_an_unknown_ref_is_told(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _commit(repository, "first")
    with pytest.raises(UnknownRef):
        schemas_at(repository, "no-such-ref")
    assert main(["--root", str(repository), "--against", "no-such-ref"]) == 2
    assert "fetch it" in capsys.readouterr().err
