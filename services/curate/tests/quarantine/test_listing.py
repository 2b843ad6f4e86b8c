from __future__ import annotations

import pytest
from tunewheel_contracts.formats.quarantine import Quarantine, quarantine_path
from tunewheel_curate.pipeline import build
from tunewheel_curate.quarantine.listing import MOST_LISTED, forget_quarantined, write_quarantine
from tunewheel_runtime.store import ObjectStore


@pytest.fixture
def waiting(records, spec, varied_rows):
    rows = [row | {"kind": "feedback", "trust": "corrected", "principal": "app"} for row in varied_rows(3)]
    return build(records(*rows), spec()).waiting


async def test_the_list_holds_what_waits_and_an_erasure_takes_records_out(tmp_path, waiting) -> None:
    store = ObjectStore(str(tmp_path))
    for _ in range(2):
        await write_quarantine(store, "shop", waiting, {"0": 7})
    found = Quarantine.model_validate_json(await store.read(quarantine_path("shop")))
    assert [one.record_id for one in found.records] == ["rec-0000", "rec-0001", "rec-0002"]
    assert {(one.reason, one.origin, one.trust) for one in found.records} == {
        ("correction", "app", "corrected")
    }
    await forget_quarantined(store, "shop", {"rec-0001"})
    left = await store.read(quarantine_path("shop"))
    assert b"w1x0" not in left
    assert len(Quarantine.model_validate_json(left).records) == 2


async def test_a_damaged_list_is_deleted_and_a_missing_one_is_no_error(tmp_path) -> None:
    store = ObjectStore(str(tmp_path))
    await forget_quarantined(store, "shop", {"rec-0001"})
    await store.put(quarantine_path("shop"), b"{broken")
    await forget_quarantined(store, "shop", {"rec-0001"})
    assert await store.read(quarantine_path("shop")) is None


async def test_a_flood_does_not_make_the_list_longer_than_its_limit(tmp_path, waiting, monkeypatch) -> None:
    assert MOST_LISTED >= 1_000
    monkeypatch.setattr("tunewheel_curate.quarantine.listing.MOST_LISTED", 2)
    store = ObjectStore(str(tmp_path))
    await write_quarantine(store, "shop", waiting, {})
    assert len(Quarantine.model_validate_json(await store.read(quarantine_path("shop"))).records) == 2
