"""TCP ports on this machine: who has one, and which are free."""

from __future__ import annotations

import socket

from tunewheel_cli.kafka.errors import PortInUse


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server could listen on ``host:port`` now."""
    with socket.socket() as probe:
        # As servers do: a connection that lingers in TIME_WAIT does not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def require_free(port: int) -> None:
    """Raise ``PortInUse``, with the holder's name where the system tells it, unless ``port`` is free."""
    if not is_free(port):
        raise PortInUse(port, holder(port))


def holder(port: int) -> str | None:
    """Return ``name (pid 12)`` of the process that listens on ``port``, if we may know."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr[1:2] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None
