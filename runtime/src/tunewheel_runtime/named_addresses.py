"""The addresses behind a name, each as a URL of its own."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

UNKNOWN = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
"""The name server answers, and knows no address: a headless Service without a ready pod, or a wrong name."""


def addresses_behind(url: str) -> frozenset[str]:
    """Return ``url``, ``http://name:port``, once for each address of its name; none where the name server
    knows none. Where a name has IPv4 addresses these alone count, lest one process be found twice.

    Raises:
        OSError: the name server does not answer.
        UnicodeError: it cannot be asked for such a name.
    """
    parts = urlsplit(url)
    port = parts.port or 80
    try:
        told = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in UNKNOWN:
            return frozenset()
        raise
    old = [address for family, *_, address in told if family == socket.AF_INET]
    hosts = {str(address[0]) for address in (old or [address for *_, address in told])}
    return frozenset(f"http://{f'[{host}]' if ':' in host else host}:{port}{parts.path}" for host in hosts)
