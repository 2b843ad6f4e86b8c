"""The names of completions. Each says when it was made and bears a signature over its project, so that every
gateway of an installation knows a name that one of them gave, and nobody can invent one.

``chatcmpl-``, then in hex: milliseconds since 1970 (12 digits), random bits (20), and the beginning of an
HMAC-SHA256 (RFC 2104) over the project and all of that (16). What was answered is not signed: a stream says
its name before it says anything else.
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
SIGNATURE_DIGITS = 16
"""64 bits: who may send feedback at all would have to send 2^63 names to hit one."""
_NAME = re.compile(rf"{PREFIX}([0-9a-f]{{{TIME_DIGITS}}})[0-9a-f]{{{2 * RANDOM_BYTES}}}[0-9a-f]{{16}}")
UNSHARED = (
    "TUNEWHEEL_COMPLETION_SECRET is not set: feedback for completions of gateways on other work folders is "
    "refused, and so is that for earlier ones if this folder is lost; set the same secret, of 16 characters "
    "or more, for every gateway"
)


class CompletionIds:
    """``secret`` is shared by the gateways of an installation. Without one, those that share the ``folder``
    share what the first of them made there."""

    def __init__(self, secret: str | None, folder: Path) -> None:
        self._secret = secret or ""
        self._folder = folder

    @property
    def secret(self) -> str:
        return self._secret

    def open(self) -> None:
        """Read the folder's secret, or make it, where none was set.

        Raises:
            OSError: the folder cannot be read or written to.
        """
        if not self._secret:
            self._secret = _kept_secret(self._folder / "completion-secret")
            log.warning("completion_secret_not_set", reason=UNSHARED)

    def new(self, project: str) -> str:
        """Return an id that no other completion has, here or elsewhere."""
        made = f"{PREFIX}{time.time_ns() // 1_000_000:0{TIME_DIGITS}x}{secrets.token_hex(RANDOM_BYTES)}"
        return made + self._signature(project, made)

    def project_of(self, completion_id: str, projects: Iterable[str]) -> str | None:
        """Return the one of ``projects`` that a gateway gave this id for; None where there is none."""
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
    """Return when an id that ``CompletionIds`` gave was made."""
    milliseconds = int(completion_id[len(PREFIX) :][:TIME_DIGITS], 16)
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _kept_secret(path: Path) -> str:
    """Return what the file holds, written now where there is none: whole, by the first of several."""
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
