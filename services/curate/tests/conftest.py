"""Records and specs that the tests of curate share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.dataset import TokenizerUse
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.examples.tokens import ModelTokens
from tunewheel_curate.stage import RECORD_SCHEMA
from tunewheel_curate.versions import suite

START = datetime(2026, 1, 1, tzinfo=UTC)

MakeRecords = Callable[..., pl.DataFrame]
MakeSpec = Callable[..., ProjectSpec]


def make_records(*rows: dict[str, Any]) -> pl.DataFrame:
    """Return a frame of ``RECORD_SCHEMA``; a row names what matters to the test, the rest is filled in."""
    filled: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        base: dict[str, Any] = {
            "project": "shop",
            "record_id": f"rec-{number:04}",
            "kind": "ticket",
            "source_id": f"T-{number}",
            "source_event_id": f"source-{number}",
            "title": "",
            "input": f"question number {number} about something",
            "output": json.dumps({"category": "bell"}),
            "group": f"customer-{number}",
            "trust": "expert",
            "attributes": "{}",
            "event_id": f"event-{number}",
            "published_at": START + timedelta(seconds=number),
            "partition": number % 3,
            "offset": number // 3,
        }
        filled.append(base | row)
    return pl.DataFrame(filled, schema=RECORD_SCHEMA)


def make_spec(**dataset: Any) -> ProjectSpec:
    """Return a spec whose answers are JSON with ``category`` (bell, horn) and perhaps ``reply``."""
    return ProjectSpec.model_validate(
        {
            "project": "shop",
            "base_model": "some/model",
            "task": {
                "system_prompt": "Answer as JSON.",
                "label_field": "category",
                "output_schema": {
                    "type": "object",
                    "properties": {
                        "category": {"enum": ["bell", "horn"]},
                        "reply": {"type": "string", "minLength": 2},
                    },
                    "required": ["category"],
                    "additionalProperties": False,
                },
            },
            "dataset": {"min_examples": 2} | dataset,
            "criteria": [{"metric": "valid_output", "minimum": 0.5}],
        }
    )


def varied(count: int, categories: Sequence[str] = ("bell", "horn")) -> list[dict[str, Any]]:
    """Return ``count`` rows whose inputs share no two words in a row."""
    return [
        {
            "input": " ".join(f"w{number}x{word}" for word in range(12)),
            "output": json.dumps({"category": categories[number % len(categories)]}),
        }
        for number in range(count)
    ]


@pytest.fixture(scope="session")
def records() -> MakeRecords:
    return make_records


@pytest.fixture(scope="session")
def spec() -> MakeSpec:
    return make_spec


@pytest.fixture(scope="session")
def varied_rows() -> Callable[..., list[dict[str, Any]]]:
    return varied


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A small byte-level tokenizer with a ChatML template."""
    from tunewheel_testing.tiny import tiny_tokenizer

    return tiny_tokenizer()


@pytest.fixture
def own_tokens(tokenizer: Any) -> ModelTokens:
    return ModelTokens(TokenizerUse(base_model="some/model", sha256="0" * 64), tokenizer)


@pytest.fixture
def one_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations finds nothing and writes one page. Its import takes eight seconds of a processor."""

    def write(*_: object, dataset_id: str, folder: Path, **__: object) -> tuple[()]:
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(dataset_id)
        return ()

    monkeypatch.setattr(suite, "check_expectations", write)
