"""TLS certificates of a service's doors, and the authorities that clients trust. Verification is never turned
off."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from tunewheel_contracts.errors import TunewheelError

from tunewheel_runtime.admission import is_loopback
from tunewheel_runtime.files import mark_of
from tunewheel_runtime.settings import HttpSettings

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Least time, in seconds, between two checks whether the files have changed."""
WARNING = "tls"
_END = "-----END CERTIFICATE-----"


class InvalidTls(TunewheelError):
    """A certificate, its key or an authority cannot be used; the message names the setting and the fix."""


class Certificate:
    """The certificate and key of a service's doors. A renewed pair is used for connections that are opened at
    least ``LOOK_SECONDS`` after its files were written. Open connections keep the old pair."""

    def __init__(
        self,
        certfile: Path,
        keyfile: Path,
        *,
        password: str = "",
        warn: Callable[[str, str | None], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``warn`` is called when the files become unusable, and with None when they are usable again. Until
        then the pair that was read last is used. Raises InvalidTls: the pair cannot be used."""
        self._certfile, self._keyfile, self._password = certfile, keyfile, password
        self._warn = warn
        self._clock = clock
        self._next_look = clock() + LOOK_SECONDS
        self._seen = self._marks()
        self._context = _load(certfile, keyfile, password)

    def context(self) -> ssl.SSLContext:
        """Return the TLS context for the next connection."""
        if self._clock() >= self._next_look:
            self._next_look = self._clock() + LOOK_SECONDS
            marks = self._marks()
            if marks != self._seen:
                self._seen = marks
                self._read_again()
        return self._context

    def _marks(self) -> tuple[tuple[int, ...], ...]:
        return mark_of(self._certfile), mark_of(self._keyfile)

    def _read_again(self) -> None:
        try:
            # Load into a new context: a certificate and key that do not match would break the one in use.
            self._context = _load(self._certfile, self._keyfile, self._password)
        except InvalidTls as error:
            self._warn(WARNING, f"{error}; the certificate read before stays in use")
        else:
            self._warn(WARNING, None)
            log.info("certificate_read", path=str(self._certfile))


def certificate_of(settings: HttpSettings, *, warn: Callable[[str, str | None], None]) -> Certificate | None:
    """Return the certificate of ``settings``; None where no file is set. Raises InvalidTls: only one of the
    two files is set, or the pair cannot be used."""
    certfile, keyfile, password = settings.tls_certfile, settings.tls_keyfile, settings.tls_keyfile_password
    if certfile is None and keyfile is None:
        return None
    if certfile is None or keyfile is None:
        lacking = "CERTFILE" if certfile is None else "KEYFILE"
        raise InvalidTls(
            f"TUNEWHEEL_TLS_{lacking} is not set, but the other one is: set both TUNEWHEEL_TLS_CERTFILE and "
            "TUNEWHEEL_TLS_KEYFILE, or neither"
        )
    return Certificate(certfile, keyfile, password=password.get_secret_value() if password else "", warn=warn)


def tell_of_clear_text(settings: HttpSettings) -> None:
    """Log a warning if API keys would be sent over the network unencrypted."""
    if settings.tls_certfile is None and not is_loopback(settings.http_host):
        log.warning(
            "keys_in_clear_text",
            reason=f"TUNEWHEEL_HTTP_HOST {settings.http_host} is open to the network and speaks plain HTTP; "
            "name a certificate in TUNEWHEEL_TLS_CERTFILE and its key in TUNEWHEEL_TLS_KEYFILE, unless a "
            "proxy in front speaks TLS",
        )


def trust(cafile: Path | None, *, setting: str) -> ssl.SSLContext:
    """Return a client's TLS context, which trusts the system's authorities and those in ``cafile`` (PEM).

    ``setting``: name of the setting of ``cafile``, for error messages. Raises InvalidTls: ``cafile`` cannot
    be read, or holds no certificate.
    """
    context = ssl.create_default_context()
    if cafile is not None:
        try:
            context.load_verify_locations(cafile)
        except OSError as error:  # includes ssl.SSLError
            reason = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            raise InvalidTls(
                f"{setting} {cafile}: {reason}; name a PEM file of the authority that signed the server's "
                "certificate"
            ) from error
    return context


def trust_own(certfile: Path) -> ssl.SSLContext:
    """Return the TLS context of a probe on this machine. The door must use exactly the certificate in
    ``certfile``; its host name is not checked. Raises InvalidTls: ``certfile`` cannot be read."""
    try:
        first, end, _ = certfile.read_text(encoding="utf-8", errors="replace").partition(_END)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=first + end)
    except (OSError, ValueError) as error:
        raise InvalidTls(f"TUNEWHEEL_TLS_CERTFILE {certfile} cannot be read: {error}") from error
    return context


def _load(certfile: Path, keyfile: Path, password: str) -> ssl.SSLContext:
    for name, path in (("CERTFILE", certfile), ("KEYFILE", keyfile)):
        try:
            path.open("rb").close()
        except OSError as error:
            raise InvalidTls(
                f"TUNEWHEEL_TLS_{name} {path} cannot be read: {error.strerror}; name a PEM file that this "
                "process may read"
            ) from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Always pass a password; otherwise OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certfile, keyfile, password=lambda: password)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidTls(_reason(error, certfile, keyfile)) from error
    return context


def _reason(error: Exception, certfile: Path, keyfile: Path) -> str:
    cause = getattr(error, "reason", None) or str(error)
    if cause == "KEY_VALUES_MISMATCH":
        return (
            f"TUNEWHEEL_TLS_KEYFILE {keyfile} is not the key of the certificate in TUNEWHEEL_TLS_CERTFILE "
            f"{certfile}; name the key that belongs to its first certificate"
        )
    try:
        trust_own(certfile)
    except InvalidTls:
        return f"TUNEWHEEL_TLS_CERTFILE {certfile} holds no certificate in PEM; name one that does"
    return (
        f"TUNEWHEEL_TLS_KEYFILE {keyfile} cannot be used ({cause}); name a private key in PEM, and its "
        "password, where it has one, in TUNEWHEEL_TLS_KEYFILE_PASSWORD"
    )
