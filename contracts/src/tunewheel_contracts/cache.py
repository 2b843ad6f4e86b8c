"""The folder of files that can be downloaded or made again. All processes of one user share it."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return ``TUNEWHEEL_CACHE_DIR``, or the platform's cache folder for Tunewheel."""
    configured = os.environ.get("TUNEWHEEL_CACHE_DIR")
    if configured:
        return Path(configured).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("tunewheel")
