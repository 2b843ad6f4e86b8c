from __future__ import annotations

import pytest
from tunewheel_redaction import phones
from tunewheel_redaction.finding import Finding
from tunewheel_redaction.redaction import find_entities

PHONE = ("PHONE_NUMBER",)


@pytest.mark.parametrize(
    "text",
    [
        "at 48.137154, 11.576124 since May",
        "48.13715432 is the latitude",
        "Steuer-ID 12 345 678 901",
        "order no. 415 555 2671",
        "\n".join("415.552 671.123 202.456 303.789" for _ in range(300)),
        "12 415 555 2671 88 301 777 4",
    ],
)
def test_coordinates_tables_and_other_numbers_are_no_phones(text: str) -> None:
    assert find_entities([text], PHONE) == [[]]


@pytest.mark.parametrize("text", ["+49 30 901820", "(415) 555-2671", "call 48.137154 now", "089/ 2336-500"])
def test_phones_stay_phones(text: str) -> None:
    assert len(find_entities([text], PHONE)[0]) == 1


@pytest.mark.parametrize("separator", [", ", ";", " / "])
def test_every_number_of_a_long_line_is_found(separator: str) -> None:
    numbers = ["+49 30 901820", "+49 89 21801234", "+49 40 428280", "+44 20 79460958", "+44 20 79460018"]
    text = separator.join(numbers)
    assert [text[one.start : one.end] for one in find_entities([text], PHONE)[0]] == numbers


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("Tel. 030 1234567 / 0171 2345678, Fax 030 7654321", ["030 1234567", "0171 2345678", "030 7654321"]),
        ("Anna 030/1234567, Ben 089/7654321", ["030/1234567", "089/7654321"]),
        ("Tel: 01 23 45 67 89 / 06 12 34 56 78", ["01 23 45 67 89", "06 12 34 56 78"]),
    ],
)
def test_national_numbers_of_a_contact_list_are_found(text: str, numbers: list[str]) -> None:
    assert [text[one.start : one.end].strip() for one in find_entities([text], PHONE)[0]] == numbers


def test_a_text_full_of_numbers_asks_the_costly_recogniser_a_bounded_number_of_times() -> None:
    asked: list[str] = []

    def costly(text: str) -> list[Finding]:
        asked.append(text)
        return []

    text = "\n".join(f"0{n}" for n in range(300_000_000, 300_001_000)) + "\n" + "1" * 5_000
    found = phones.near_digits(costly)(text)
    assert len(asked) <= 64
    assert max(map(len, asked)) <= 100
    assert len(found) >= 1_000 - 64, "the rest counts by its first digits"
