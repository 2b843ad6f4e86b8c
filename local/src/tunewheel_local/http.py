"""HTTP sessions to a wheel's services. TLS certificates are always verified."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tunewheel_local.connection import InvalidOption

if TYPE_CHECKING:
    from aiohttp import ClientSession


HTTP_CAFILE = "TUNEWHEEL_HTTP_CAFILE"


def open_session(*, probe: Path | None = None, authority: str = HTTP_CAFILE, **options: Any) -> ClientSession:
    """Return a session that trusts the system's authorities, and those in the file that the variable
    ``authority`` names.

    ``probe``: the certificate of a service on this machine. Then only that certificate is trusted.
    ``options`` are aiohttp's.

    Raises:
        InvalidTls: a file of certificates cannot be used.
    """
    import aiohttp
    from tunewheel_runtime.tls import trust, trust_own

    if probe is not None:
        verified = trust_own(probe)
    else:
        cafile = os.environ.get(authority)
        verified = trust(Path(cafile) if cafile else None, setting=authority)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=verified), **options)


def parse_urls(text: str | None, *, option: str, advice: str) -> tuple[str, ...]:
    """Return the comma-separated addresses in ``text``, without repetitions.

    ``advice``: what to do instead of writing a name or password into an address.

    Raises:
        InvalidOption: an address is no URL, or holds a name or password, which the message does not repeat.
    """
    urls = tuple(dict.fromkeys(url for part in (text or "").split(",") if (url := part.strip().rstrip("/"))))
    for url in urls:
        if "@" in url:
            raise InvalidOption(
                f"{option}: holds a name or password, which logs and metrics would tell; {advice}"
            )
        if not _is_http(url):
            raise InvalidOption(
                f"{option}: {url!r} is no URL; write http://host:port, several separated by commas"
            )
    return urls


def resolved(text: str | None, *, option: str, advice: str) -> tuple[str, ...]:
    """Return the addresses in ``text``, with every ``dns+http://name:port`` replaced by the addresses of the
    name: the IPv4 ones if it has any, as in the gateway.

    Raises:
        InvalidOption: see ``parse_urls``; or a name has no address.
    """
    parts = [part.strip() for part in (text or "").split(",")]
    names = parse_urls(
        ",".join(part.removeprefix("dns+") for part in parts if part.startswith("dns+")),
        option=option,
        advice=advice,
    )
    listed = [part for part in parts if not part.startswith("dns+")]
    found = [url for name in names for url in _addresses(name, option)]
    return parse_urls(",".join([*listed, *found]), option=option, advice=advice)


def _addresses(name: str, option: str) -> list[str]:
    from tunewheel_runtime.named_addresses import addresses_behind

    if not name.startswith("http://"):
        raise InvalidOption(
            f"{option}: a name of engines is dns+http://name:port; certificates bear no addresses"
        )
    try:
        found = addresses_behind(name)
    except (OSError, UnicodeError) as error:
        raise InvalidOption(f"{option}: {name!r} has no address ({error}); mend the name") from error
    if not found:
        raise InvalidOption(f"{option}: {name!r} has no address; mend the name, or start an engine")
    return sorted(found)


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # for example http://[::1, or a port that is no number
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def own_certificate(environment: Mapping[str, str]) -> Path | None:
    """Return the certificate of services with this environment; None: they use plain HTTP."""
    certfile = environment.get("TUNEWHEEL_TLS_CERTFILE")
    return Path(certfile) if certfile else None
