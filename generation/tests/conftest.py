"""A tiny random model, and adapters for it."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel


@pytest.fixture
def tiny_model(tiny_base: BaseModel) -> Any:
    return load_base(tiny_base, dtype="float32", device="cpu")[0]
