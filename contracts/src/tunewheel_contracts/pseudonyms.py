"""Pseudonyms of customers, sources and experts. The same name always gets the same pseudonym."""

from __future__ import annotations

import hmac

DIGITS = 20
"""Hex digits of a pseudonym: 80 bits, so that two of a project are never equal in practice."""
CHECK_DIGITS = 8


class Pseudonyms:
    """The pseudonyms of one project: HMAC-SHA256 (RFC 2104), keyed by the installation's secret.

    The key is derived per project, so a customer has different pseudonyms in different projects. Without a
    ``secret`` anybody can compute the hash: the pseudonym does not show the name, but a guessed name can be
    confirmed.
    """

    def __init__(self, project: str, secret: str = "") -> None:
        self.keyed = bool(secret)
        """Whether a secret is set."""
        self._key = hmac.digest(secret.encode(), f"pseudonyms of {project}".encode(), "sha256")

    def of(self, noun: str, name: str) -> str:
        """Return ``<noun>-`` and 20 hex digits for the ``name`` of a ``noun`` (such as group or source)."""
        return f"{noun}-{self._digest(noun, name)[:DIGITS]}"

    def mark(self, mark: str) -> str:
        """Return the keyed hash of ``mark``, which is a hash in hex, with the same number of digits."""
        return self._digest("mark", mark)[: len(mark)]

    def key(self, use: str) -> bytes:
        """Return 32 bytes that key the hashes of one ``use``."""
        return hmac.digest(self._key, f"key\0{use}".encode(), "sha256")

    @property
    def check(self) -> str:
        """Return hex digits by which two secrets can be compared, and which reveal nothing else about
        them."""
        return self._digest("check", "")[:CHECK_DIGITS]

    def _digest(self, noun: str, name: str) -> str:
        return hmac.digest(self._key, f"{noun}\0{name}".encode(), "sha256").hex()
