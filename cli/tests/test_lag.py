"""Which groups an installation has, and which services have no process."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from tunewheel_cli.acls import SERVICES
from tunewheel_cli.commands.tables import print_status
from tunewheel_cli.wheel_report import WheelReport
from tunewheel_runtime.cluster import SeenGroup
from tunewheel_runtime.lag import committed_offsets, groups_of_services, lag_of, silent_services


def test_every_service_that_reads_by_groups_is_looked_for() -> None:
    groups = groups_of_services()
    assert {group.partition(".")[0] for group in groups} == set(SERVICES) - {"console"}
    assert groups["train.dataset-versioned"] == {"dataset.versioned"}
    assert groups["registry.active"] == {"project.declared"}


def test_a_group_that_this_client_may_not_see_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    lags = [
        lag_of("eval.train-completed", "train.completed", 0, visible=False),
        lag_of("train.dataset-versioned", "dataset.versioned", 7),
    ]
    assert "eval" not in silent_services(lags)
    print_status(None, WheelReport(lags=lags))
    printed = " ".join(capsys.readouterr().out.split())
    assert "this client may not see the groups eval.train-completed" in printed
    assert "train.dataset-versioned 7" in printed, "and the rest is told"


async def test_the_lag_of_other_groups_is_read_where_one_is_hidden() -> None:
    class Admin:
        async def list_consumer_group_offsets(self, name: str, coordinator: int) -> dict[TopicPartition, Any]:
            assert (name, coordinator) == ("train.dataset-versioned", 3)
            return {TopicPartition("dataset.versioned", 0): OffsetAndMetadata(5, "")}

    groups = {
        "train.dataset-versioned": SeenGroup(3, exists=True),
        "eval.train-completed": SeenGroup(visible=False),
    }
    assert await committed_offsets(Admin(), groups) == {
        "train.dataset-versioned": {("dataset.versioned", 0): 5}
    }


def test_a_foreign_group_is_no_process_of_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    lags = [lag_of("eval.somebodys-own", "run.evaluated", 0, ("10.0.0.1",))]
    assert lags[0].service == ""
    assert "eval" in silent_services(lags)
    print_status(None, WheelReport(lags=lags))
    assert "processes:" not in capsys.readouterr().out


def test_only_groups_that_somebody_joined_are_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    nobody = lag_of("train.dataset-versioned", "dataset.versioned", 0)
    joined = [lag_of("registry.active", topic, 0, ("10.0.0.1",)) for topic in ("a", "b")]
    print_status(None, WheelReport(lags=[nobody]))
    assert "at the end" not in capsys.readouterr().out
    print_status(None, WheelReport(lags=[nobody, *joined]))
    assert "1 consumer groups are at the end of the log" in capsys.readouterr().out


def test_brackets_in_names_and_notes_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    service = {"pid": None, "url": "http://[::1]:8102", "state": "no answer", "restarts": 0, "note": "[red]"}
    lag = lag_of("my[group]", "dataset.versioned", 1)
    print_status(None, WheelReport(lags=[lag], services={"curate [b]": service}, warnings={"x [b]": ["[y]"]}))
    printed = capsys.readouterr().out
    for text in ("curate [b]", "http://[::1]:8102", "[red]", "my[group]", "x [b] warns: [y]"):
        assert text in printed


def test_a_service_without_a_member_in_any_group_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    lags = [
        lag_of("ingest.ticket-published", "ticket.published", 0, ("10.0.0.1", "10.0.0.2")),
        lag_of("ingest.example-published", "example.published", 3),
        lag_of("train.dataset-versioned", "dataset.versioned", 7),
    ]
    silent = silent_services(lags)
    assert "train" in silent
    assert "ingest" not in silent
    print_status(None, WheelReport(lags=lags))
    printed = " ".join(capsys.readouterr().out.split())
    assert "processes: ingest 2" in printed
    assert "train.dataset-versioned 7" in printed
    assert "no process reads the log for: curate, train, eval" in printed
