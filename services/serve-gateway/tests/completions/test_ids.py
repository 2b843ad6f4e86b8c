from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tunewheel_serve_gateway.completions.ids import CompletionIds, made_at

SECRET = "sixteen characters"


def test_a_name_tells_its_project_and_its_moment_to_every_gateway(tmp_path: Path):
    one, other = CompletionIds(SECRET, tmp_path), CompletionIds(SECRET, tmp_path / "elsewhere")
    names = [one.new("desk") for _ in range(100)]
    assert len(set(names)) == 100
    assert {other.project_of(name, ["shop", "desk"]) for name in names} == {"desk"}
    assert all(datetime.now(UTC) - made_at(name) < timedelta(minutes=1) for name in names)


def test_a_name_of_another_project_secret_or_shape_is_none(tmp_path: Path):
    ids, stranger = CompletionIds(SECRET, tmp_path), CompletionIds(SECRET + "x", tmp_path)
    name = ids.new("desk")
    assert ids.project_of(name, ["shop"]) is None
    assert stranger.project_of(name, ["desk"]) is None
    for changed in (name + "0", name[:-1], "c" + name, name.upper(), "", f"{name}\n", "chatcmpl-" + "0" * 48):
        assert ids.project_of(changed, ["desk"]) is None


def test_without_a_secret_those_that_share_a_folder_know_each_other_after_a_restart_too(tmp_path: Path):
    first, second, apart = (CompletionIds(None, tmp_path / name) for name in ("shared", "shared", "apart"))
    for ids in (first, second, apart):
        ids.open()
    assert second.project_of(first.new("desk"), ["desk"]) == "desk"
    assert apart.project_of(first.new("desk"), ["desk"]) is None
    (file,) = (tmp_path / "shared").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
