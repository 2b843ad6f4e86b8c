"""Assembles the ingest service."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.source_spec import SourceSpec
from tunewheel_runtime.process import run_service
from tunewheel_runtime.retention import delete_handled
from tunewheel_runtime.service import Service
from tunewheel_runtime.view import View

from tunewheel_ingest.documents import Documents
from tunewheel_ingest.door.app import FILES, make_api
from tunewheel_ingest.door.quota import Quota
from tunewheel_ingest.handlers import register, require_project
from tunewheel_ingest.parsing.process import ParserProcess
from tunewheel_ingest.settings import Settings
from tunewheel_ingest.sources.registry import Registry
from tunewheel_ingest.sources.topics import SourceTopics


class Door:
    """The HTTP API's access to the service."""

    def __init__(self, service: Service, projects: View[ProjectDeclared], quota: Quota) -> None:
        self._service = service
        self._projects = projects
        self._quota = quota

    async def check_project(self, project: str) -> None:
        await require_project(self._projects, project)

    def admit(self, project: str) -> None:
        self._quota.admit(project)

    def source(self, project: str, name: str) -> SourceSpec | None:
        declared = self._projects.get(project)
        sources = declared.data.spec.sources if declared is not None else ()
        return next((source for source in sources if source.name == name), None)

    def wrap(self, data: Any) -> Envelope[Any]:
        return self._service.new(data)

    async def publish(self, envelopes: list[Envelope[Any]]) -> None:
        await self._service.publish_many(envelopes)
        self._quota.charge(envelope.project for envelope in envelopes)


def make_app(settings: Settings) -> Service:
    """Build the service; nothing runs yet."""
    service = Service("ingest", settings)
    projects: View[ProjectDeclared] = service.view(topics.PROJECT_DECLARED)
    parser = ParserProcess(settings.parse_limits)
    service.on_shutdown(parser.close)
    registry = Registry(settings.schema_registry_url, settings.schema_registry_auth)
    sources = SourceTopics(service, projects, registry, allowed=settings.source_topics)
    service.on_startup(sources.start)
    service.on_shutdown(sources.stop)
    documents = Documents(service.store, parser, max_bytes=settings.max_document_bytes)
    register(service, projects, documents)
    delete_handled(service, days=settings.upstream_days)
    door = Door(service, projects, Quota(settings.project_events_per_minute))
    service.doors.mount(
        make_api(
            door,
            service.store,
            max_body_bytes=settings.max_body_bytes,
            publish_batch=settings.publish_batch,
            max_document_bytes=settings.max_document_bytes,
            source_secrets=settings.source_secrets_file,
        ),
        any_content=[FILES],
    )
    return service


def main() -> None:
    """Run the service with settings from the environment."""
    run_service("ingest", Settings, make_app)


if __name__ == "__main__":
    main()
