"""How the service is assembled."""

from __future__ import annotations

import pytest
from tunewheel_curate.main import make_app
from tunewheel_curate.settings import Settings


def test_a_store_in_one_process_cannot_hold_the_record_table() -> None:
    with pytest.raises(ValueError, match="use file://"):
        make_app(Settings(store_url="memory://"))
