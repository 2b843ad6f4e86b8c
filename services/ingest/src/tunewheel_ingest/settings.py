"""Settings of the ingest service."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from tunewheel_contracts.topics import FOREVER, MAX_MESSAGE_BYTES
from tunewheel_runtime.settings import ServiceSettings

from tunewheel_ingest.parsing.limits import Limits

MAX_WALL_SECONDS = 120
DOCUMENTS_AT_ONCE = 4
"""How many documents are fetched together. Even the slowest ones must be read before Kafka removes the
consumer from its group, 600 s after the last fetch."""

TICKETS_AT_ONCE = 40
"""How many tickets are fetched together, within the same time: any of them may hold HTML."""


class Settings(ServiceSettings):
    """``TUNEWHEEL_*`` variables of the ingest service."""

    max_body_bytes: int = Field(default=MAX_MESSAGE_BYTES, ge=1_024)
    """Largest single JSON body, and largest line of a JSON Lines body, which is streamed."""
    max_document_bytes: int = Field(default=64 << 20, ge=1_024)
    """Largest document that is taken as a file."""
    parse_memory_mb: int = Field(default=1_024, ge=256)
    """Address space, in MiB, of the process that reads one document."""
    parse_cpu_seconds: int = Field(default=90, ge=1)
    """Processor time that reading one document may take."""
    parse_wall_seconds: int = Field(default=MAX_WALL_SECONDS, ge=1, le=MAX_WALL_SECONDS)
    """Time that reading one document may take."""
    max_parsed_mb: int = Field(default=16, ge=1)
    """Largest result of reading one document, in MiB: its Markdown and its sections together."""
    project_events_per_minute: int | None = Field(default=None, ge=1)
    """The most events of one project that the doors of one process take a minute, and at once after a pause.
    More are refused with status 429. Erasures are never refused. None: no limit."""
    publish_batch: int = Field(default=500, ge=1)
    """How many lines of a JSON Lines body are published and acknowledged together."""
    upstream_days: int = Field(default=7, ge=FOREVER)
    """Tickets, documents, examples and feedback are deleted from the log so many days after they were
    published, if every service has handled them. -1: never. Erased people's texts stay on these topics until
    then."""

    source_topics: str = ""
    """Topics of other systems that projects' sources may name, separated by commas: names, or patterns such
    as ``crm.*``; ``crm.tickets=helpdesk`` lets only this project read the topic. Empty: none is read."""
    source_secrets_file: Path | None = None
    """YAML file of the secrets of webhooks: by ``project/source`` one secret, or a list of two while one is
    replaced. It is read at each request."""
    schema_registry_url: str | None = None
    """The schema registry of messages in Confluent's wire format."""
    schema_registry_username: str | None = None
    schema_registry_password: SecretStr | None = None

    @property
    def schema_registry_auth(self) -> tuple[str, str] | None:
        name, password = self.schema_registry_username, self.schema_registry_password
        return None if name is None else (name, password.get_secret_value() if password else "")

    @property
    def parse_limits(self) -> Limits:
        return Limits(
            memory_bytes=self.parse_memory_mb << 20,
            cpu_seconds=self.parse_cpu_seconds,
            wall_seconds=self.parse_wall_seconds,
            output_bytes=self.max_parsed_mb << 20,
        )
