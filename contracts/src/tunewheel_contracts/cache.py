"""The folder of files that can be downloaded or made again. All processes of one user share it."""

from __future__ import annotations

import os
from pathlib import Path

from tunewheel_contracts.errors import FieldError


class InvalidCacheDir(FieldError):
    """``TUNEWHEEL_CACHE_DIR`` names no folder, and none that can be made."""

    def __init__(self, reason: str) -> None:
        super().__init__("TUNEWHEEL_CACHE_DIR", reason)


def cache_dir(named: str | Path | None = None) -> Path:
    """Return ``named``, else ``TUNEWHEEL_CACHE_DIR``, else the platform's cache folder for Tunewheel.

    Raises:
        InvalidCacheDir: the home in it is of nobody here, a file is in its place, or it may not be looked at.
    """
    configured = named or os.environ.get("TUNEWHEEL_CACHE_DIR")
    if not configured:
        from platformdirs import user_cache_path

        return user_cache_path("tunewheel")
    try:
        folder = Path(configured).expanduser()
    except RuntimeError as error:
        raise InvalidCacheDir("~ is the home of nobody here; write the folder in full") from error
    try:
        there = next((place for place in (folder, *folder.parents) if place.exists()), None)
    except OSError as error:
        raise InvalidCacheDir(f"cannot be looked at ({error.strerror}); name a folder that can") from error
    if there is not None and not there.is_dir():
        raise InvalidCacheDir(f"{there} is not a folder; name a folder, or one that can be made")
    return folder
