from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_curate.cleaning.boilerplate import without_disclaimers, without_greeting, without_signature

OWN = "The bell is silent again.\nWhat now?"
CUTS = (without_greeting, without_signature, without_disclaimers)


@pytest.mark.parametrize(
    "line",
    ["Hi,", "Hello support team,", "Dear Mr. O'Brien,", "Good morning!", "Hey Anna-Lena",
     "To whom it may concern:", "Sehr geehrte Damen und Herren,", "Hallo Jörg,", "Bonjour,", "Hola!"],
)  # fmt: skip
def test_a_greeting_is_cut(line: str) -> None:
    assert without_greeting(f"{line}\n\n{OWN}") == OWN


@pytest.mark.parametrize(
    "text",
    ["Hello, my bell broke.\nWhat now?", "Hi bell broken!\nPlease help", "Hi,",
     "Dear me that is a lot\nof money", "Hello World fails to compile\nwith error 3", OWN, ""],
)  # fmt: skip
def test_what_says_more_than_hello_stays(text: str) -> None:
    assert without_greeting(text) == text


@pytest.mark.parametrize(
    "tail",
    ["-- \nAnna Smith\nLarkspur Mobility", "--\nAnna", "Best regards,\nAnna Smith\n+49 30 1234567", "Thanks!",
     "Thank you so much,\nAnna", "Kind regards, Anna Smith", "Mit freundlichen Grüßen\nJörg",
     "Best regards,\n\nAnna Smith\n\nLarkspur\nFleet\n1 Main Street\nSpringfield\n\nTel +49 30 1234567",
     "Un saludo,\nAna", "Pozdrawiam,\nAnna", "よろしくお願いいたします。\n山田花子", "此致\n敬礼\n王芳",
     "Skickat från min iPhone",
     "--\nJoe Smith | Director, Product Management of the North",
     "Sent from my iPhone", "Cheers\n\nSent from my iPhone", "Cordialement,\nZoé"],
)  # fmt: skip
def test_a_signature_is_cut(tail: str) -> None:
    assert without_signature(f"{OWN}\n\n{tail.replace('-- ', '--')}") == OWN


@pytest.mark.parametrize(
    "text",
    [
        f"{OWN}\n\nThanks,\nAnna\nPS: the lamp is dark too",
        f"{OWN}\n\nThanks\nmy order is number 4711",
        f"{OWN}\n\nThanks\nIs that all right?",
        f"{OWN}\n\nThanks\n1. I oiled it\n2. I rang it",
        f"{OWN}\n\nThanks for nothing, it broke again on the road",
        f"{OWN}\n\nRegards\n" + "\n".join(f"line {n}" for n in range(12)),
        f"{OWN}\n\nSent from my desk, is much easier than my mobile phone.",
        f"The manual says\n--\npress twice\n--\n{OWN}",
        "The manual says\n--\npress twice\n--\nTell me which button it means",
        "Thanks",
        OWN,
        "",
    ],
)
def test_what_may_carry_a_fact_stays(text: str) -> None:
    assert without_signature(text) == text


@pytest.mark.parametrize(
    "notice",
    [
        "This e-mail and any attachments are confidential and intended solely for the addressee. If you are "
        "not the intended recipient, please notify the sender and delete it.",
        "DISCLAIMER: We accept no liability for viruses.",
        "Please consider the environment before printing this e-mail.",
    ],
)
def test_a_notice_is_cut(notice: str) -> None:
    assert without_disclaimers(f"{OWN}\n\n{notice}") == OWN


@pytest.mark.parametrize(
    "text",
    [
        f"{OWN}\n\nIs my address kept confidential?",
        f"{OWN}\n\nI got the parcel in error.",
        "Disclaimer: none",
        OWN,
        "",
    ],
)
def test_what_is_no_notice_stays(text: str) -> None:
    assert without_disclaimers(text) == text


@given(st.text(max_size=2_000))
def test_cutting_only_removes(text: str) -> None:
    for cut in CUTS:
        assert cut(text) in text or cut is without_disclaimers
        assert bool(cut(text).strip()) == bool(text.strip())


@pytest.mark.parametrize(
    "hostile", ["hi " * 300_000, "Hi A\n" * 200_000, "regards " * 100_000, "\n\n" * 300_000]
)
def test_hostile_text_is_read_in_one_pass(hostile: str) -> None:
    for cut in CUTS:
        assert len(cut(hostile)) <= len(hostile)
