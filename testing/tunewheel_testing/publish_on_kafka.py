"""Publishes a path or a URL straight onto Kafka, in a process of its own:
``python -m tunewheel_testing.publish_on_kafka PATH PROJECT KAFKA [INGEST]``. Exit 3: some was refused."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tunewheel_cli.publishing.items import Summary
from tunewheel_cli.publishing.publish import publish_path
from tunewheel_cli.publishing.remote import is_url, publish_url

from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.kafka_door import USUAL, KafkaDoor


async def main(path: str, project: str, kafka: str, ingest: str = USUAL.url) -> Summary:
    door = KafkaDoor({"bootstrap_servers": kafka}, Endpoint("ingest", ingest))
    if is_url(path):
        return await publish_url(path, project=project, door=door)
    return await publish_path(Path(path), project=project, door=door)


if __name__ == "__main__":
    summary = asyncio.run(main(*sys.argv[1:]))
    print(json.dumps(summary.as_json()))
    sys.exit(3 if summary.refused else 0)
