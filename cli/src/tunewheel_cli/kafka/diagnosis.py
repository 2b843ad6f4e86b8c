"""Turns a broker's log into an error that says what to do."""

from __future__ import annotations

from pathlib import Path

from tunewheel_cli.kafka.errors import BrokerError, BrokerFailed, DataCorrupt, DataInUse, PortInUse

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
    told = "\n".join(lines)
    if "Failed to acquire lock on file" in told:
        return DataInUse(data)
    if "Address already in use" in told:
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
