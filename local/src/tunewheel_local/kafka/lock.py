"""Writes ``jars.lock``: run it only to move to another Kafka version.

python -m tunewheel_local.kafka.lock > local/src/tunewheel_local/kafka/jars.lock
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tunewheel_contracts.identity import sha256_file

from tunewheel_local.kafka.jars import Jar, maven_context

KAFKA = "4.3.1"
BROKER = f"org.apache.kafka:kafka_2.13:{KAFKA}"
LOG_BINDING = ("org.apache.logging.log4j", "log4j-slf4j-impl")
LOG_API = "org.apache.logging.log4j:log4j-api"
HEADER = f"""\
# Apache Kafka {KAFKA}'s broker, and a binding that makes its log readable.
# Written by `python -m tunewheel_local.kafka.lock`; do not edit.
"""


def lock(folder: Path) -> tuple[Jar, ...]:
    """Resolve the broker by itself, add the log binding of the same log4j, and hash every jar."""
    context = maven_context(folder)
    own, transitive = context.resolver.resolve([context.create_dependency(BROKER)])
    coordinates = {(d.groupId, d.artifactId, d.version) for d in (*own, *transitive)}
    log4j = next(version for group, name, version in coordinates if f"{group}:{name}" == LOG_API)
    group, artifact = LOG_BINDING
    coordinates.add((group, artifact, log4j))
    jars: list[Jar] = []
    for group, artifact, version in sorted(coordinates):
        path = context.project(group, artifact).at_version(version).artifact().resolve()
        jars.append(Jar(group, artifact, version, sha256_file(path)))
    return tuple(jars)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        lines = [f"{jar.coordinate} sha256:{jar.sha256}\n" for jar in lock(Path(scratch))]
    sys.stdout.write(HEADER + "".join(lines))


if __name__ == "__main__":
    main()
