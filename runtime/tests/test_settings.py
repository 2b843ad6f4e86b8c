from __future__ import annotations

import pytest
from tunewheel_contracts.cache import cache_dir
from tunewheel_runtime.settings import HttpSettings


@pytest.mark.parametrize("folder", ["~/cache", "cache", "/var/cache/tunewheel", None])
def test_services_and_the_command_have_one_cache_folder(
    folder: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TUNEWHEEL_CACHE_DIR", raising=False)
    if folder is not None:
        monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", folder)
    assert HttpSettings().cache_dir == cache_dir()
    assert "~" not in str(cache_dir())
