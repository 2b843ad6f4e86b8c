"""Who reads the log."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.lag import TopicsMissing, lag_of


async def test_groups_tell_their_lag_and_services_without_a_process_are_named(ask: Any, lags: list[GroupLag]):
    lags += [
        lag_of("train.dataset-versioned", "dataset.versioned", 7, ("10.0.0.1",)),
        lag_of("eval.train-completed", "train.completed", visible=False),
    ]
    found = (await ask("/services")).json()
    first = found["groups"][0]
    assert (first["service"], first["behind"], first["hosts"]) == ("train", 7, ["10.0.0.1"])
    assert found["hidden"] == ["eval.train-completed"]
    assert "ingest" in found["silent"]
    assert not {"train", "eval"} & {*found["silent"]}


@pytest.mark.parametrize("error", [TopicsMissing("acme."), NotAllowed("describe"), TransientError("away")])
async def test_a_cluster_that_cannot_be_asked_is_told(ask: Any, lags: Any, error: Exception):
    lags.append(error)
    answer = await ask("/services")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, str(error))
