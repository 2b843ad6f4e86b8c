"""Resolves a URL's host name, and returns one URL per address."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

UNKNOWN = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
"""Errors by which the name server says that a name has no address. The name is wrong, or it is a headless
Service without a ready pod."""


def addresses_behind(url: str) -> frozenset[str]:
    """Return ``url``, of the form ``http://name:port``, once for each address of its name; empty where the
    name has no address. If a name has IPv4 addresses, IPv6 addresses are left out, so that no process is
    found twice.

    Raises:
        OSError: the name server does not answer.
        UnicodeError: the name cannot be resolved, because it is no valid host name.
    """
    parts = urlsplit(url)
    port = parts.port or 80
    try:
        resolved = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in UNKNOWN:
            return frozenset()
        raise
    old = [address for family, *_, address in resolved if family == socket.AF_INET]
    hosts = {str(address[0]) for address in (old or [address for *_, address in resolved])}
    return frozenset(f"http://{f'[{host}]' if ':' in host else host}:{port}{parts.path}" for host in hosts)
