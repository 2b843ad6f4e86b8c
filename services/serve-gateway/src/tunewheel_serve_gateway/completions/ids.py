"""Signed ids of completions.

An id holds its time of creation and a signature that covers its project. Every gateway of an installation can
therefore recognise an id that another gateway made, and nobody else can make a valid one.

An id is ``chatcmpl-``, then in hex: milliseconds since 1970 (12 digits), random bits (20 digits), and the
first 16 digits of an HMAC-SHA256 (RFC 2104) over the project and all before it. The answer's text is not
signed, because a stream sends the id first.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import re
import secrets
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)
PREFIX = "chatcmpl-"
TIME_DIGITS = 12
RANDOM_BYTES = 10
DRAWN_DIGITS = 8
SIGNATURE_DIGITS = 16
"""64 bits: a caller would have to send about 2^63 ids to guess a valid one."""
_NAME = re.compile(rf"{PREFIX}([0-9a-f]{{{TIME_DIGITS}}})[0-9a-f]{{{2 * RANDOM_BYTES}}}[0-9a-f]{{16}}")
UNSHARED = (
    "TUNEWHEEL_COMPLETION_SECRET is not set, so this work folder holds a secret of its own: feedback for "
    "completions of gateways with another work folder is refused, and if this folder is lost, so is feedback "
    "for earlier completions; set the same secret, of 16 characters or more, for every gateway"
)


class CompletionIds:
    """Makes and checks ids. ``secret`` is shared by all gateways of an installation. None: the gateways that
    share ``folder`` use a secret which the first of them wrote there."""

    def __init__(self, secret: str | None, folder: Path) -> None:
        self._secret = secret or ""
        self._folder = folder

    @property
    def secret(self) -> str:
        return self._secret

    def open(self) -> None:
        """Where no secret was set, read the folder's secret, or create it. Raises OSError: the folder cannot
        be read or written to."""
        if not self._secret:
            self._secret = _kept_secret(self._folder / "completion-secret")
            log.warning("completion_secret_not_set", reason=UNSHARED)

    def new(self, project: str) -> str:
        """Return a new id. Its random bits make it unique over all gateways."""
        made = f"{PREFIX}{time.time_ns() // 1_000_000:0{TIME_DIGITS}x}{secrets.token_hex(RANDOM_BYTES)}"
        return made + self._signature(project, made)

    def project_of(self, completion_id: str, projects: Iterable[str]) -> str | None:
        """Return the project among ``projects`` for which this id was made; None where there is none."""
        if _NAME.fullmatch(completion_id) is None:
            return None
        made, signature = completion_id[:-SIGNATURE_DIGITS], completion_id[-SIGNATURE_DIGITS:]
        for project in projects:
            if hmac.compare_digest(self._signature(project, made), signature):
                return project
        return None

    def _signature(self, project: str, made: str) -> str:
        signed = hmac.digest(self._secret.encode(), f"completion\0{project}\0{made}".encode(), "sha256")
        return signed.hex()[:SIGNATURE_DIGITS]


def made_at(completion_id: str) -> datetime:
    """Return the time at which ``CompletionIds`` made this id."""
    milliseconds = int(completion_id[len(PREFIX) :][:TIME_DIGITS], 16)
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def is_drawn(completion_id: str, share: float) -> bool:
    """Return whether this id is in a sample of ``share`` of all ids that ``CompletionIds`` makes. The random
    bits decide, so every process draws the same sample, and a smaller sample is a part of a larger one."""
    drawn = completion_id[len(PREFIX) + TIME_DIGITS :][:DRAWN_DIGITS]
    return int(drawn, 16) < share * 16**DRAWN_DIGITS


def _kept_secret(path: Path) -> str:
    """Return the secret in the file. If the file is missing, create it with a new secret; of several
    processes that try, the first wins."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text("ascii")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unnamed = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(unnamed, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, secrets.token_urlsafe(32).encode())
    finally:
        os.close(descriptor)
    with contextlib.suppress(FileExistsError):
        os.link(unnamed, path)
    unnamed.unlink()
    return path.read_text("ascii")
