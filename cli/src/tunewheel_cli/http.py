"""HTTP to the doors of a wheel. Whoever answers is verified, always."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import ClientSession


def open_session(*, probe: Path | None = None, **options: Any) -> ClientSession:
    """Return a session that trusts the system's authorities and the one in ``TUNEWHEEL_HTTP_CAFILE``.

    ``probe``: the certificate of a door on this machine; then that very certificate is trusted, and nothing
    else. ``options`` are aiohttp's.

    Raises:
        InvalidTls: a file of certificates cannot be used.
    """
    import aiohttp
    from tunewheel_runtime.tls import trust, trust_own

    if probe is not None:
        verified = trust_own(probe)
    else:
        cafile = os.environ.get("TUNEWHEEL_HTTP_CAFILE")
        verified = trust(Path(cafile) if cafile else None, setting="TUNEWHEEL_HTTP_CAFILE")
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=verified), **options)


def own_certificate(environment: Mapping[str, str]) -> Path | None:
    """Return the certificate that services with this environment show, None where they speak plain HTTP."""
    certfile = environment.get("TUNEWHEEL_TLS_CERTFILE")
    return Path(certfile) if certfile else None
