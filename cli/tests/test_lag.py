"""Which groups an installation has, and which services have no process."""

from __future__ import annotations

import pytest
from tunewheel_cli.acls import SERVICES
from tunewheel_cli.commands.tables import print_status
from tunewheel_cli.lag import GroupLag, groups_of_services, silent_services
from tunewheel_cli.wheel_report import WheelReport


def test_every_service_that_reads_by_groups_is_looked_for() -> None:
    groups = groups_of_services()
    assert {group.partition(".")[0] for group in groups} == set(SERVICES) - {"console"}
    assert groups["train.dataset-versioned"] == {"dataset.versioned"}
    assert groups["registry.active"] == {"project.declared"}


def test_a_service_without_a_member_in_any_group_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    lags = [
        GroupLag("ingest.ticket-published", "ticket.published", 0, ("10.0.0.1", "10.0.0.2")),
        GroupLag("ingest.example-published", "example.published", 3),
        GroupLag("train.dataset-versioned", "dataset.versioned", 7),
    ]
    silent = silent_services(lags)
    assert "train" in silent
    assert "ingest" not in silent
    print_status(None, WheelReport(lags=lags))
    printed = " ".join(capsys.readouterr().out.split())
    assert "processes: ingest 2" in printed
    assert "train.dataset-versioned 7" in printed
    assert "no process runs of: curate, train, eval" in printed
