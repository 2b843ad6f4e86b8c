"""The bundled example's questions, as the monitor reads them: what the first version does not cover is told,
and the same traffic is no drift to the second version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.spec import parse_spec
from tunewheel_contracts.identity import content_sha256
from tunewheel_embedding.static import StaticEmbedder, unit_length
from tunewheel_monitor.coverage import Coverage
from tunewheel_monitor.detectors import DETECTORS, Opening
from tunewheel_monitor.detectors.picking import encoded

from .conftest import alarms, answer, windows

HELPDESK = Path(__file__).resolve().parents[4] / "examples" / "helpdesk"
INPUT = tuple(one for one in DETECTORS if one.family == "input" and one.name != "documents")
ORDERS = 20
Ticket = dict[str, Any]


def tickets(name: str) -> list[Ticket]:
    """Return the tickets of a wave that an expert answered, without planted faults."""
    found: list[Ticket] = []
    for line in (HELPDESK / name).read_text("utf-8").splitlines():
        try:
            ticket = json.loads(line)
        except ValueError:
            continue
        if isinstance(ticket.get("answer"), dict) and ticket["answer"].get("category"):
            found.append(ticket)
    return found


def trains(ticket: Ticket) -> bool:
    """Four of five customers' tickets do; curate holds the others out."""
    return int(content_sha256(str(ticket["customer"]))[:8], 16) % 5 > 0


class Asked:
    """Questions as a dataset of ``reference`` scores them."""

    def __init__(self, reference: Sequence[Ticket], questions: Sequence[Ticket]) -> None:
        labels = [ticket["answer"]["category"] for ticket in reference]
        self.coverage = Coverage.fit(embed(reference), labels)
        vectors = embed(questions)
        scores, units = self.coverage.score(vectors), unit_length(vectors)
        self.items = [
            answer(
                completion_id=f"c-{n}", dataset_id="ds-1", cell=int(scores.cell[n]),
                novelty=float(scores.novelty[n]), novel=bool(scores.novel[n]),
                vector=encoded(units[n]) if scores.novel[n] else None, label=labels[scores.nearest[n]],
            )
            for n in range(len(questions))
        ]  # fmt: skip

    def alarmed(self, seed: int) -> set[str]:
        """Return the detectors that alarm when the questions come in one of many orders."""
        drift = parse_spec((HELPDESK / "project.yaml").read_text("utf-8")).drift
        order = np.random.default_rng(seed).permutation(len(self.items))
        begun = Opening(drift=drift, dataset_id="ds-1", coverage=self.coverage.facts)
        return {
            one.name
            for one in INPUT
            if alarms(windows(one, one.open(begun), (self.items[n] for n in order), size=drift.window))
        }


def embed(asked: Sequence[Ticket]) -> Any:
    return StaticEmbedder().embed([f"{ticket['subject']}\n\n{ticket['body']}" for ticket in asked])


@pytest.fixture(scope="module")
def waves() -> list[list[Ticket]]:
    return [tickets(name) for name in ("tickets.jsonl", "second_wave.jsonl", "third_wave.jsonl")]


def test_the_second_wave_alarms_in_every_order(waves: list[list[Ticket]]) -> None:
    first, second, _ = waves
    asked = Asked(list(filter(trains, first)), second)
    assert all("novelty" in asked.alarmed(seed) for seed in range(ORDERS))


def test_the_same_traffic_after_the_second_turn_alarms_in_no_order(waves: list[list[Ticket]]) -> None:
    """As in the demo: four fifths of the second wave were trained on, and nothing of the third."""
    first, second, third = waves
    asked = Asked(list(filter(trains, first + second)), second + third)
    assert [asked.alarmed(seed) for seed in range(ORDERS)] == [set()] * ORDERS
