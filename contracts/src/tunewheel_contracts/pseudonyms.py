"""Names that stand for customers, sources and experts: the same for the same one, and nobody's own."""

from __future__ import annotations

import hmac

DIGITS = 20
"""Hex digits of a pseudonym: 80 bits, so that no two of a project are alike."""
CHECK_DIGITS = 8


class Pseudonyms:
    """The pseudonyms of one project: HMAC-SHA256 (RFC 2104), keyed by the installation's secret.

    The key is derived for the project: the same customer has other pseudonyms in another one. Without a
    ``secret`` a pseudonym is a hash that anybody can make: nobody reads a name in it, but a guess can be
    confirmed.
    """

    def __init__(self, project: str, secret: str = "") -> None:
        self.keyed = bool(secret)
        """Whether there is a secret."""
        self._key = hmac.digest(secret.encode(), f"pseudonyms of {project}".encode(), "sha256")

    def of(self, noun: str, name: str) -> str:
        """Return ``<noun>-`` and 20 hex digits for the ``name`` that a ``noun`` (group, source) bears."""
        return f"{noun}-{self._digest(noun, name)[:DIGITS]}"

    def mark(self, mark: str) -> str:
        """Return the keyed form of ``mark``, a hash in hex, with as many digits."""
        return self._digest("mark", mark)[: len(mark)]

    @property
    def check(self) -> str:
        """Hex digits that tell whether two secrets are the same, and nothing else of them."""
        return self._digest("check", "")[:CHECK_DIGITS]

    def _digest(self, noun: str, name: str) -> str:
        return hmac.digest(self._key, f"{noun}\0{name}".encode(), "sha256").hex()
