"""From earlier releases to today and back, under traffic: no project is forgotten, nothing is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import start_broker
from .upgrading import RELEASES, run

pytestmark = [pytest.mark.integration, pytest.mark.nightly("upgrade")]

NEWEST = "09973d6fc1c1205871bcc95a4c6b23403759abd3"
"""The newest commit from which an upgrade and a rollback are tried. The commit is no release of
``releases.txt``, whose logs are read anew in every run of the tests."""

TOGETHER = {
    "AbstainSpec.to", "Bundle.chat_template_kwargs", "Bundle.constraint", "DatasetCounts.formats",
    "ServingDesired.stand_ins", "SourceSpec.format", "StaticEmbedding.kind", "TaskSpec.chat_template_kwargs",
}  # fmt: skip
"""Fields that the events of an upgrade leave out, or of which they leave out a value, since such a value is
valid beside certain others alone."""


@pytest.mark.parametrize("commit", [RELEASES[0], NEWEST], ids=["from the first", "newest and back"])
def test_an_upgrade_under_traffic_loses_and_refuses_nothing(commit: str, tmp_path: Path) -> None:
    """The figures are in var/nightly/upgrades.json."""
    broker = start_broker(tmp_path / "kafka")
    try:
        found = run(commit, tmp_path, broker, back=commit == NEWEST)
    finally:
        broker.kill()
    assert {one.split()[1] for one in found["places_unused"]} <= TOGETHER
    assert found["tickets"] > 50
    assert found["completions"] > 50
    assert (found["projects_forgotten"], found["dead_letters"], found["answers_5xx"]) == ([], {}, 0)
