from __future__ import annotations

import hmac
import re

from tunewheel_contracts.pseudonyms import Pseudonyms

SECRET = "a secret of the installation"


def test_a_pseudonym_is_the_same_for_the_same_one_and_only_there() -> None:
    names = Pseudonyms("shop", SECRET)
    one = names.of("group", "jane@acme.com")
    assert re.fullmatch("group-[0-9a-f]{20}", one)
    assert one == Pseudonyms("shop", SECRET).of("group", "jane@acme.com")
    others = [
        names.of("group", "joe@acme.com"),
        names.of("source", "jane@acme.com").replace("source", "group"),
        Pseudonyms("desk", SECRET).of("group", "jane@acme.com"),
        Pseudonyms("shop", "another secret").of("group", "jane@acme.com"),
        Pseudonyms("shop").of("group", "jane@acme.com"),
    ]
    assert len({one, *others}) == 6


def test_a_pseudonym_is_the_documented_hmac() -> None:
    key = hmac.new(SECRET.encode(), b"pseudonyms of shop", "sha256").digest()
    digest = hmac.new(key, b"group\0jane@acme.com", "sha256").hexdigest()
    assert Pseudonyms("shop", SECRET).of("group", "jane@acme.com") == f"group-{digest[:20]}"


def test_marks_keep_their_length_and_tell_secrets_apart() -> None:
    mark = "0123456789abcdef" * 2
    keyed = Pseudonyms("shop", SECRET).mark(mark)
    assert re.fullmatch("[0-9a-f]{32}", keyed)
    assert keyed != mark
    assert Pseudonyms("shop", SECRET).check != Pseudonyms("shop", "another").check
    assert SECRET not in repr(vars(Pseudonyms("shop", SECRET)))
