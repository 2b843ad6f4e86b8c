from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_cli.publishing.watching import Watched, WatchForgotten


def test_what_was_seen_last_is_read_back(tmp_path: Path) -> None:
    watched = Watched.of(tmp_path / "var", tmp_path / "docs", "p")
    assert watched.read() == frozenset()
    watched.write({"a.md", "sub/ü.md"})
    watched.write({"sub/ü.md"})
    assert Watched.of(tmp_path / "var", tmp_path / "docs" / ".", "p").read() == {"sub/ü.md"}
    assert [file.name for file in (tmp_path / "var").iterdir()] == [watched.path.name]


def test_other_folders_and_projects_are_other_watches(tmp_path: Path) -> None:
    watches = [(tmp_path, "p"), (tmp_path / "x", "p"), (tmp_path, "q")]
    assert len({Watched.of(tmp_path, *watch).path for watch in watches}) == len(watches)


@pytest.mark.parametrize("data", [b"{", b"[]", b"{}", b"\xff", b'{"documents": 3}'])
def test_a_memory_that_is_broken_is_named_with_the_fix(tmp_path: Path, data: bytes) -> None:
    watched = Watched(tmp_path / "w.json")
    watched.path.write_bytes(data)
    with pytest.raises(WatchForgotten, match=r"w\.json cannot be read .*delete it"):
        watched.read()


def test_a_memory_that_cannot_be_kept_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WatchForgotten, match=r"cannot be written .*--var"):
        Watched(tmp_path / "file" / "w.json").write({"a.md"})
