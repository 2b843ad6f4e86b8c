from __future__ import annotations

import pytest
from tunewheel_redaction.redaction import find_entities
from tunewheel_redaction.secrets import find_secrets

LONG = "aB3dE5gH7jK9mN1pQ3sT5vX7zA9cE1gI3kM5"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzzzz"


def left(text: str) -> str:
    for found in sorted(find_secrets(text), key=lambda f: -f.start):
        text = text[: found.start] + "#" * (found.end - found.start) + text[found.end :]
    return text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"I use ghp_{LONG} since Monday", f"ghp_{LONG}"),
        (f"grüße, {JWT} fails", JWT),
        ("AKIAQ3EGRZTXN5PLMB7W is the key", "AKIAQ3EGRZTXN5PLMB7W"),
        (f"aws_secret_access_key = {AWS}", AWS),
        ("my password is tulip#42, thanks", "tulip#42"),
        ('{"apiKey": "0f8fad5bd9cb469fa165708677289"}', "0f8fad5bd9cb469fa165708677289"),
        ("Passwort: Sommer$9", "Sommer$9"),
        ("postgres://shop:s3cr3t-pw@db.internal:5432/x", "s3cr3t-pw"),
        (f"Authorization: Bearer {LONG}", LONG),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\nv9x2", "MIIE"),
    ],
)
def test_credentials_are_found(text: str, secret: str) -> None:
    assert secret in text
    assert secret not in left(text)


@pytest.mark.parametrize(
    "text",
    [
        "Password: required for login",
        "The token is missing.",
        "set token: ${TOKEN} or {{ secrets.token }}",
        "API key: see https://docs.example.com/keys",
        "Reset your password to continue; access key rotation happens monthly",
        "bearer of bad news: authentication-required",
        "commit 9fceb02d0ae598e95dc970b74767f19372d61af8 broke 2026-11-30T10:00:00Z",
    ],
)
def test_words_about_credentials_are_none(text: str) -> None:
    assert find_secrets(text) == []


@pytest.mark.parametrize("secret", ["40aXy8!kdQ", "2ea9c0ff31bd8872aa", "pw%41z&amp;9!x", "41aXy8!kdQ"])
def test_a_credential_that_looks_like_an_encoded_sign_is_found(secret: str) -> None:
    text = f"set password={secret} now"
    (found,) = find_entities([text], ("SECRET",))[0]
    assert text[found.start : found.end] == secret


def test_hostile_texts_take_linear_work() -> None:
    for hostile in ("-----BEGIN PRIVATE KEY-----", "token", "a://", "api_", "pass is ", "basic A"):
        find_secrets(hostile * 10_000)
