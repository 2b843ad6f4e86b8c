"""What the tests of redaction share."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def shared_data() -> Path:
    """The folder of real public data beside the checkout; skips the test where it is missing."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: it is not part of the repository")
    return folder
