from __future__ import annotations

import base64
import subprocess
import sys

import pytest
from tunewheel_redaction.redaction import find_entities
from tunewheel_redaction.spellings import find_split_cards

EMAIL = ("EMAIL_ADDRESS",)


@pytest.mark.parametrize(
    "spelt",
    [
        "jane.roe@\nacme.com",
        "jane.roe@\n> acme.com",
        "jane.roe@acme.\ncom",
        "jane.roe @ acme.com",
        "jane.roe at acme dot com",
        "jane.roe [at] acme [dot] com",
        "jane.roe(at)acme.com",
        "jane.roe=40acme.com",
        "jane.roe%2540acme.com",
        "jane.roe\\@acme.com",
        base64.b64encode(b"jane.roe@acme.com").decode(),
    ],
)
def test_an_address_is_found_however_it_is_spelt(spelt: str) -> None:
    text = f"Write to {spelt} today"
    (found,) = find_entities([text], EMAIL)[0]
    assert text[found.start : found.end] == spelt


@pytest.mark.parametrize(
    "text", ["look at example.com", "arrive at 9. Then go", "a @ b", "thanks @jane, see example.com"]
)
def test_other_uses_of_at_are_no_address(text: str) -> None:
    assert find_entities([text], EMAIL) == [[]]


def test_base64_without_personal_data_stays() -> None:
    assert find_entities([base64.b64encode(b"nothing to see here").decode()], EMAIL) == [[]]


@pytest.mark.parametrize(
    "card",
    [
        "4111.1111.1111.1111",
        "4111/1111/1111/1111",
        "4111 1111\n1111 1111",
        "4111-\n1111-1111-1111",
        "3782.822463.10005",
    ],
)
def test_a_card_is_found_with_any_separator(card: str) -> None:
    text = f"card {card}, please"
    (found,) = find_entities([text], ("CREDIT_CARD",))[0]
    assert text[found.start : found.end] == card


def test_a_card_split_over_turns_is_found_and_years_are_none() -> None:
    turns = ["it starts 4111 1111", "and ends 1111 1111, thanks"]
    found = find_split_cards(turns)
    parts = {place: [turns[place][f.start : f.end] for f in own] for place, own in found.items()}
    assert parts == {0: ["4111 1111"], 1: ["1111 1111"]}
    assert find_split_cards([turns[0], "no number here", turns[1]]) == {}
    assert find_split_cards(["in 2024 and 2025", "or 2026, 2027"]) == {}


def test_hostile_texts_take_linear_work() -> None:
    for hostile in ("a", "a at ", "a@", "a.b@c.", "QUJD"):
        find_entities([hostile * 10_000], EMAIL)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Reach me at b.okafor@example.org.", ["b.okafor@example.org"]),
        ("call me at jo.li@example.com or at kim@example.org", ["jo.li@example.com", "kim@example.org"]),
        ("see a@b.nosuchtld jo@example.com", ["jo@example.com"]),
        ("look at notes.text at d.e@example.com", ["d.e@example.com"]),
        ("look at example.com", []),
    ],
)
def test_an_address_is_found_after_words_that_look_like_one(text: str, found: list[str]) -> None:
    assert [text[one.start : one.end] for one in find_entities([text], EMAIL)[0]] == found


def test_the_address_of_a_page_is_found_in_the_path_of_what_is_no_host() -> None:
    text = "see notes.text/http://a.example.com/x for it"
    (found,) = find_entities([text], ("URL",))[0]
    assert text[found.start : found.end] == "http://a.example.com/x"


@pytest.mark.parametrize("finder", ["find_urls", "find_emails"])
def test_whichever_finder_is_asked_first_none_asks_the_network(finder: str) -> None:
    text = "Write to jane.roe at acme dot com, or see pages.example.co.uk/help"
    code = (
        "import socket\n"
        "asked = []\n"
        "socket.getaddrinfo = lambda *of, **options: asked.append(of)\n"
        f"from tunewheel_redaction.spellings import {finder}\n"
        f"found = {finder}({text!r})\n"
        "assert found and not asked, (found, asked)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
