from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_planner.devices import catalogue, read_catalogue

CARD: dict[str, Any] = {"name": "ours", "kind": "cuda", "memory_gib": 48, "teraflops": 100}
HALF = {"low": 0.1, "expected": 0.2, "high": 0.5}


def written(directory: Path, *cards: dict[str, Any]) -> Path:
    file = directory / "devices.json"
    file.write_text(json.dumps({"as_of": "2031-02-03", "about": "", "devices": cards}))
    return file


def test_what_comes_along_can_be_read_as_ones_own(tmp_path: Path) -> None:
    cards = [device.model_dump(mode="json") for device in catalogue().devices]
    assert read_catalogue(written(tmp_path, *cards)).devices == catalogue().devices


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": ""}, "name"),
        ({"memory_gib": float("inf")}, "memory_gib"),
        ({"memory_gib": float("nan")}, "memory_gib"),
        ({"teraflops": float("inf")}, "teraflops"),
        ({"teraflops": -1}, "teraflops"),
        ({"dollars_per_hour": [-1, 2]}, "dollars_per_hour.0"),
        ({"dollars_per_hour": [5, 1]}, "dollars_per_hour"),
        ({"efficiency": HALF | {"low": 0}}, "efficiency"),
        ({"efficiency": HALF | {"expected": 0.6}}, "efficiency"),
        ({"efficiency": HALF | {"high": 1.5}}, "efficiency"),
    ],
    ids=str,
)
def test_a_card_that_cannot_be_names_the_field(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidSpec) as caught:
        read_catalogue(written(tmp_path, CARD | change))
    assert caught.value.field == f"devices.devices.0.{field}"


@pytest.mark.parametrize(
    ("today", "said"), [("2031-02-03", None), ("2031-08-05", None), ("2031-08-06", "6"), ("2033-02-03", "24")]
)
def test_prices_older_than_half_a_year_are_cautioned_against(
    tmp_path: Path, today: str, said: str | None
) -> None:
    priced = read_catalogue(written(tmp_path, CARD | {"dollars_per_hour": [1, 2]}))
    told = priced.cautions(date.fromisoformat(today))
    assert [f"are {said} months old (as_of 2031-02-03)" in one for one in told] == [True] * (said is not None)
    assert read_catalogue(written(tmp_path, CARD)).cautions(date.fromisoformat(today)) == ()


def test_cards_of_one_name_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="names ours twice"):
        read_catalogue(written(tmp_path, CARD, CARD))
    with pytest.raises(InvalidSpec, match="names no device"):
        read_catalogue(written(tmp_path))
