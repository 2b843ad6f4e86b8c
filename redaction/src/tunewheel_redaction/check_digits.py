"""Check digits of card numbers and bank accounts."""

from __future__ import annotations

from collections.abc import Sequence


def passes_luhn(digits: Sequence[int]) -> bool:
    """Return whether ``digits`` end with their check digit (ISO/IEC 7812-1, Luhn)."""
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def passes_mod97(iban: str) -> bool:
    """Return whether the check digits of a compact ``iban`` are right (ISO 13616, modulo 97)."""
    return int("".join(str(int(char, 36)) for char in iban[4:] + iban[:4])) % 97 == 1
