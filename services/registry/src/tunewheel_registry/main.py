"""The registry's process."""

from __future__ import annotations

import asyncio

from tunewheel_contracts import topics
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.process import run_service
from tunewheel_runtime.service import Service

from tunewheel_registry.api import add_about, add_lineage, make_api
from tunewheel_registry.handlers import register
from tunewheel_registry.ledger import Ledger
from tunewheel_registry.lineage.index import TOPICS as LINEAGE
from tunewheel_registry.lineage.index import LineageIndex
from tunewheel_registry.lineage.records import RecordFiles
from tunewheel_registry.settings import Settings

OWN = (
    topics.MODEL_REGISTERED,
    topics.MODEL_PROMOTED,
    topics.MODEL_ROLLEDBACK,
    topics.MODEL_PINNED,
    topics.COMMAND_REFUSED,
)
"""Topics that only the registry writes. Together with its ``eval.requested`` events they hold its whole
state."""


def make_app(settings: Settings) -> Service:
    """Build the service. The registry's own events, the specs and the topics of lineage are read to their end
    before any handler runs."""
    service = Service("registry", settings)
    service.one_at_a_time(topics.PROJECT_DECLARED, hot_standby=True)
    declared = service.view(topics.PROJECT_DECLARED)

    async def find_spec(project: str) -> ProjectSpec | None:
        envelope = await declared.fresh(project)
        return envelope.data.spec if envelope else None

    def known_spec(project: str) -> ProjectSpec | None:
        envelope = declared.get(project)
        return envelope.data.spec if envelope else None

    async def catch_up() -> None:
        # Without the newest spec, a desired state made from an older one would undo the newest.
        await asyncio.gather(log.refresh(), declared.refresh())

    ledger = Ledger(service, find_spec, catch_up, service.access.require)
    log = service.replay((*OWN, topics.EVAL_REQUESTED), ledger.replay)
    for topic in OWN:
        service.check(topic)
    register(service, ledger)
    index = LineageIndex()
    service.replay(LINEAGE, index.apply)
    api = make_api(ledger, known_spec)
    add_lineage(api, index, RecordFiles(service.store))
    add_about(api, ledger, index, service.store)
    service.doors.mount(api)
    return service


def main() -> None:
    """Run the service from the environment's settings."""
    run_service("registry", Settings, make_app)


if __name__ == "__main__":
    main()
