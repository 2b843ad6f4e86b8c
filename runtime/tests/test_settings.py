from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError
from tunewheel_contracts.cache import cache_dir
from tunewheel_runtime.settings import HttpSettings


@pytest.mark.parametrize("folder", ["~/cache", "cache", ".", "/var/cache/tunewheel", "", None])
def test_services_and_the_command_have_one_cache_folder(
    folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEWHEEL_CACHE_DIR", raising=False)
    if folder is not None:
        monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", folder)
    assert HttpSettings().cache_dir == cache_dir()
    assert "~" not in str(cache_dir())


@pytest.mark.parametrize("folder", ["~nobody-here", "~nobody-here/cache", Path("~nobody-here/a/b")])
def test_a_home_that_is_nobody_s_is_refused_by_the_name_of_the_setting(folder: str | Path) -> None:
    with pytest.raises(ValidationError, match=r"cache_dir\n.*write the folder in full"):
        HttpSettings(cache_dir=folder)  # type: ignore[arg-type]


@pytest.mark.parametrize("below", ["a" * 300, "a" * 300 + "/models", "b/" * 3000])
def test_a_cache_folder_that_cannot_be_looked_at_is_refused(below: str, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=r"cache_dir\n.*cannot be looked at \(File name too long\)"):
        HttpSettings(cache_dir=tmp_path / below)


@pytest.mark.parametrize("below", [".", "models", "a/b"])
def test_a_file_in_the_place_of_the_cache_folder_is_refused(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValidationError, match=r"cache_dir\n.*/file is not a folder"):
        HttpSettings(cache_dir=tmp_path / "file" / below)
