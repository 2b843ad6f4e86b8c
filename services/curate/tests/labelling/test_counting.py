"""Labels near an alarm's cluster, counted in a real table as it grows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_curate.labelling.counting import LabelCount
from tunewheel_curate.records.table import RecordTable

from ..conftest import make_spec

SPEC = make_spec()


def asked(alarm: str, centroid: tuple[float, ...]) -> LabelsRequested:
    return LabelsRequested(
        project="shop", request_id=alarm, alarm_id=alarm, dataset_id="ds-1", wanted=5, centroid=centroid,
        radius=0.1,
    )  # fmt: skip


class Shop:
    """A table, and an embedding that knows questions about solar panels from all others."""

    def __init__(self, folder: Path, records: Any) -> None:
        self.table = RecordTable(str(folder))
        self.erasures: list[Any] = []
        self.embedded: list[str] = []
        self._records = records
        self._rows: list[dict[str, Any]] = []
        self.labels = LabelCount(self.table, lambda _: self.erasures, embed=self._embed)

    def _embed(self, texts: Sequence[str]) -> Any:
        self.embedded += texts
        return np.array([[1.0, 0.0] if "solar" in text else [0.0, 1.0] for text in texts])

    def keep(self, *inputs: str, **told: Any) -> None:
        self._rows += [{"input": text} | told for text in inputs]
        self.table.append(self._records(*self._rows))

    def count(self, **wanted: LabelsRequested) -> dict[str, int]:
        return {alarm: one.trusted for alarm, one in self.labels.count(SPEC, wanted).items()}


@pytest.fixture
def shop(tmp_path: Path, records: Any) -> Shop:
    return Shop(tmp_path / "records", records)


def test_what_experts_answered_near_a_cluster_is_counted_once(shop: Shop) -> None:
    solar, other = asked("a-1", (1.0, 0.0)), asked("a-2", (0.0, 1.0))
    assert shop.count(a=solar) == {"a": 0}
    shop.keep("my solar panel is off", "my bell is off")
    assert shop.count(a=solar, b=other) == {"a": 1, "b": 1}
    shop.keep("a solar roof for two", "what is a solar panel?", trust="unverified")
    shop.keep("two solar panels blink")
    assert shop.count(a=solar, b=other) == {"a": 2, "b": 1}
    looked = len(shop.embedded)
    assert shop.count(a=solar, b=other) == {"a": 2, "b": 1}
    assert len(shop.embedded) == looked, "each question was looked at already"


def test_what_was_erased_counts_no_longer(shop: Shop) -> None:
    solar = asked("a-1", (1.0, 0.0))
    shop.keep("my solar panel is off", "a solar roof for two")
    assert shop.count(a=solar) == {"a": 2}
    until = datetime(2030, 1, 1, tzinfo=UTC)
    shop.erasures.append(Erasure(project="shop", customer="customer-0", until=until))
    assert shop.count(a=solar) == {"a": 1}, "before the table is without them too"
    rows = pl.DataFrame({"partition": [0], "offset": [0]})
    shop.table.erase(rows)
    assert shop.count(a=solar) == {"a": 1}


def test_answers_to_prompts_that_a_later_revision_names_count(shop: Shop) -> None:
    shop.keep("my solar panel is off", "the meter runs backwards")
    solar = asked("a-1", (1.0, 0.0))
    assert shop.count(a=solar) == {"a": 1}
    grown = solar.model_copy(update={"revision": 2, "completion_ids": ("T-1",)})
    assert shop.count(a=grown) == {"a": 2}
