"""Which certificates a client trusts. They are always verified."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from urllib.parse import urlsplit

from tunewheel_client.errors import NoAddress

CAFILE = "TUNEWHEEL_HTTP_CAFILE"
LOOPBACK = ("all://127.0.0.1", "all://localhost", "all://[::1]")
"""Addresses on this machine, which no proxy can reach."""


def is_local(url: str) -> bool:
    """Return whether ``url`` is of this machine."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def trusted() -> ssl.SSLContext:
    """Return the authorities of the system, and those of the file in ``TUNEWHEEL_HTTP_CAFILE``. Without such
    a file all clients of a process share one context, until the system's files change: reading the
    authorities takes longer than a request.

    Raises:
        NoAddress: the file cannot be used.
    """
    paths, cafile = ssl.get_default_verify_paths(), os.environ.get(CAFILE)
    if not cafile:
        return _shared(paths, _mark_of(paths.cafile), _mark_of(paths.capath))
    context = _of_system(paths)
    try:
        context.load_verify_locations(cafile)
    except OSError as error:
        raise NoAddress(f"{CAFILE}: {cafile} holds no certificates in PEM ({error})") from error
    return context


def _of_system(paths: ssl.DefaultVerifyPaths) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if not paths.cafile and not paths.capath and not context.get_ca_certs():
        import certifi  # the machine has no authorities of its own

        context.load_verify_locations(certifi.where())
    return context


@lru_cache(maxsize=1)
def _shared(paths: ssl.DefaultVerifyPaths, *_marks: tuple[int, ...]) -> ssl.SSLContext:
    return _of_system(paths)


def _mark_of(path: str | None) -> tuple[int, ...]:
    """Return a value that changes when the file, or what the folder lists, changes. Links are followed."""
    try:
        found = os.stat(path or "")
    except OSError:
        return ()
    return found.st_ino, found.st_mtime_ns, found.st_size
