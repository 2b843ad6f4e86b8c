"""What train, eval and monitor would say of the n-th candidate of a project."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SMOLLM2, put_adapter
from tunewheel_testing.desk import Desk


def desk_of(project: str) -> Desk:
    return Desk(project, base=SMOLLM2)


def adapter_of(project: str, n: int, **changes: Any) -> AdapterRef:
    return desk_of(project).adapter(n, **changes)


async def stored_adapter(store: ObjectStore, project: str, n: int) -> AdapterRef:
    return await put_adapter(store, desk_of(project).model_id(n), base=SMOLLM2)


def trained(project: str, n: int, **changes: Any) -> Envelope[Any]:
    return desk_of(project).trained(n, **changes)


def passed(project: str, n: int, **changes: Any) -> Envelope[Any]:
    return desk_of(project).passed(n, **changes)


def rejected(project: str, n: int) -> Envelope[Any]:
    """What eval says after a person rejected candidate ``n``."""
    return desk_of(project).failed(n, reasons=("rejected by ada",), field="review")


def judged(project: str, n: int, stage: str, verdict: str) -> Envelope[Any]:
    return desk_of(project).judged(n, stage, verdict, generation=1)
