"""How the service is assembled."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_curate.main import make_app
from tunewheel_curate.records.log import Gap
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.settings import Settings
from tunewheel_runtime.store import ObjectStore


def test_a_store_in_one_process_cannot_hold_the_record_table() -> None:
    with pytest.raises(ValueError, match="use file://"):
        make_app(Settings(store_url="memory://"))


async def test_only_what_the_stored_table_has_may_leave_the_log_and_nothing_while_a_gap_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: Any
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr("tunewheel_curate.main.delete_handled", lambda _, **how: given.update(how))
    make_app(Settings(store_url=tmp_path.as_uri()))
    held, table = given["held"], RecordTable(str(tmp_path / "records"))
    rows = records({}, {}).with_columns(
        pl.lit(0, dtype=pl.Int32).alias("partition"), pl.Series("offset", [0, 1], dtype=pl.Int64)
    )
    for upto in (1, 2):
        table.append(rows[:upto])
        assert [await held(0), await held(1)] == [upto, 0]
    shutil.rmtree(tmp_path / "records")
    assert await held(0) == 0, "the table was lost while it was open"
    RecordTable(table.url).append(rows)
    assert await held(0) == 2
    await ObjectStore(tmp_path.as_uri()).put(Gap(1, 3, 9).path, b"{}")
    assert [await held(0), await held(1)] == [0, 0], "another replica noted a gap"
