from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_contracts import generate
from tunewheel_contracts.generate import generated, main, repository_root, stale


@pytest.fixture(scope="module")
def wanted() -> dict[str, str]:
    """What is generated; once, since it takes seconds."""
    return generated()


def test_committed_files_match_the_models(wanted: dict[str, str]) -> None:
    assert len(wanted) >= 44
    assert stale(repository_root(), wanted) == []


def test_generation_is_deterministic(wanted: dict[str, str]) -> None:
    assert generated() == wanted


def test_check_lists_what_is_stale_and_writing_mends_it(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    wanted: dict[str, str],
) -> None:
    monkeypatch.setattr(generate, "generated", lambda: wanted)
    assert main(["--root", str(tmp_path)]) == 0
    assert main(["--root", str(tmp_path), "--check"]) == 0
    changed = tmp_path / "contracts/schemas/scorecard.json"
    changed.write_text("{}\n")
    (tmp_path / "docs/events.md").unlink()
    orphan = tmp_path / "contracts/schemas/gone.happened.json"
    orphan.write_text("{}\n")
    assert main(["--root", str(tmp_path), "--check"]) == 1
    listed = capsys.readouterr().err
    for path in (
        "contracts/schemas/scorecard.json",
        "docs/events.md",
        "contracts/schemas/gone.happened.json",
    ):
        assert f"stale: {path}" in listed
    assert changed.read_text() == "{}\n", "a check writes nothing"
    main(["--root", str(tmp_path)])
    assert not orphan.exists()
    assert stale(tmp_path, wanted) == []
