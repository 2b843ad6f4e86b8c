"""Deletes what every service has handled; without a broker."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, KafkaError
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import FEEDBACK_RECEIVED
from tunewheel_runtime import retention
from tunewheel_runtime.retention import Retention
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore


@pytest.mark.parametrize(
    ("error", "warns"),
    [(GroupAuthorizationFailedError("monitor.feedback-received"), True), (KafkaConnectionError("x"), False)],
)
async def test_a_group_that_may_not_be_described_is_a_warning_and_a_broker_that_is_away_none(
    error: KafkaError, warns: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def refused(*_: object, group: str) -> None:
        asked.set()
        raise TransientError(f"cannot tell how far {group} has handled it") from error

    monkeypatch.setattr(retention, "group_backlog", refused)
    warnings = dict[str, str | None]()
    kept = Retention(
        ServiceSettings(store_url=tmp_path.as_uri()),
        ObjectStore(tmp_path.as_uri()),
        FEEDBACK_RECEIVED,
        days=0,
        warn=warnings.__setitem__,
        failed=pytest.fail,
    )
    await kept.start()
    await asked.wait()
    await asyncio.sleep(0)
    await kept.stop()
    assert ["tunewheel admin acls" in (text or "") for text in warnings.values()] == [True] * warns
