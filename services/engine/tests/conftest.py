"""A whole engine on a tiny random model, and adapters for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from starlette.testclient import TestClient
from tunewheel_basemodel.locate import BaseModel
from tunewheel_engine.engine import Engine, load_engine
from tunewheel_engine.main import make_app
from tunewheel_engine.settings import Settings
from tunewheel_runtime.identity.access import Access

PROMPT = [5, 9, 33, 70, 101, 7, 250, 12]


@pytest.fixture
def settings(tiny_base: BaseModel, tmp_path: Path) -> Settings:
    (tmp_path / "adapters").mkdir(exist_ok=True)
    return Settings(
        base_model=str(tiny_base.path),
        cache_dir=tmp_path,
        adapter_roots=[tmp_path / "adapters"],
        max_batch=3,
        max_queue=2,
        max_context=128,
        prefill_tokens=16,
    )


@pytest.fixture
def engine(settings: Settings) -> Engine:
    return load_engine(settings, on_failure=lambda: None)


@pytest.fixture
def http(engine: Engine) -> Iterator[TestClient]:
    with TestClient(
        make_app(engine, Access(engine.settings, warn=print)), base_url="http://127.0.0.1:8110"
    ) as client:
        yield client


@pytest.fixture
def default_logs() -> Iterator[None]:
    """After the test, logs go where they went before."""
    root = logging.getLogger()
    handlers, level, before = root.handlers[:], root.level, structlog.get_config()
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    root.handlers[:] = handlers
    root.setLevel(level)
