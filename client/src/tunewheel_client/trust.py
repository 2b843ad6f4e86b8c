"""Which certificates a client trusts. They are always verified."""

from __future__ import annotations

import os
import ssl

from tunewheel_client.errors import NoAddress

CAFILE = "TUNEWHEEL_HTTP_CAFILE"
LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""Addresses on this machine, which no proxy can reach."""


def trusted() -> ssl.SSLContext:
    """Return the authorities of the system, and those of the file in ``TUNEWHEEL_HTTP_CAFILE``.

    Raises:
        NoAddress: the file cannot be used.
    """
    import httpx

    context = httpx.create_ssl_context()
    context.load_default_certs()
    if cafile := os.environ.get(CAFILE):
        try:
            context.load_verify_locations(cafile)
        except (OSError, ssl.SSLError) as error:
            raise NoAddress(f"{CAFILE}: {cafile} holds no certificates in PEM ({error})") from error
    return context
