"""TCP ports on this machine: which are free, and which process holds one."""

from __future__ import annotations

import socket
import sys

from tunewheel_local.kafka.errors import PortInUse


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether a server could listen on ``host:port`` now."""
    with socket.socket() as probe:
        # Servers set it too, so a connection in TIME_WAIT does not block a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


_reserved: list[socket.socket] = []


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free port, for a server that may start seconds later.

    On Linux the port stays bound by this process, so the system gives it to no process that asks for any
    port. A server that names it can still listen, because Linux allows that with ``SO_REUSEADDR``.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind((host, 0))
    port = int(probe.getsockname()[1])
    if sys.platform.startswith("linux"):
        _reserved.append(probe)
    else:
        probe.close()
    return port


def require_free(port: int) -> None:
    """Raise ``PortInUse``, with the holder's name if it is known, unless ``port`` is free."""
    if not is_free(port):
        raise PortInUse(port, holder(port))


def holder(port: int) -> str | None:
    """Return ``name (pid 12)`` of the process that listens on ``port``; None if the system does not tell."""
    import psutil

    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr[1:2] == (port,) and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return None
    return None
