from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_redaction.answers import Kind, parts_of, with_parts
from tunewheel_redaction.redaction import Redactor

JANE, CARD, PHONE = "jane@acme.com", 4111111111111111, 491701234567


def cleaned(answer: str, **options: object) -> str:
    redactor = Redactor(PiiPolicy(), **options)  # type: ignore[arg-type]
    return redactor.clean_answers(pl.Series([answer, None]), pl.Series(["g", "g"]))[0]


@pytest.mark.parametrize(
    ("answer", "clean"),
    [
        ({JANE: 1}, {"<EMAIL_ADDRESS>": 1}),
        ({"a": [{JANE: [JANE]}]}, {"a": [{"<EMAIL_ADDRESS>": ["<EMAIL_ADDRESS>"]}]}),
        ({JANE: 1, "joe@acme.com": 2, "x": 3}, {"<EMAIL_ADDRESS>": 1, "<EMAIL_ADDRESS> 2": 2, "x": 3}),
        ({"card": CARD, "phone": PHONE, "n": 12, "share": 0.8712345678}, {"card": 0, "phone": 0, "n": 12,
         "share": 0.8712345678}),
        ({"homePhone": "491701234567", "id": "491701234567", "tel_2": [5550199]},
         {"homePhone": "<PHONE_NUMBER>", "id": "491701234567", "tel_2": [0]}),
        ([float(CARD), -CARD], [0.0, 0]),
        ({"sure": True, "none": None, "empty": {}}, {"sure": True, "none": None, "empty": {}}),
    ],
)  # fmt: skip
def test_keys_strings_and_whole_numbers_of_json_are_redacted(answer: object, clean: object) -> None:
    said = json.loads(cleaned(json.dumps(answer)))
    assert said == clean
    assert json.dumps(said) == json.dumps(clean), "a number keeps its type"


def test_a_number_in_exponent_notation_is_read_as_its_digits() -> None:
    assert cleaned('{"card": 4.111111111111111e15, "huge": 1e999999, "tiny": 1e-9}') == (
        '{"card": 0.0, "huge": 1e999999, "tiny": 1e-9}'
    )


@pytest.mark.parametrize("number", ["1e999999999", "1e99999999999999999999", "-1e-99999999999999999999"])
def test_a_number_of_any_exponent_is_nobodys(number: str) -> None:
    assert cleaned(f'{{"n": {number}, "to": "{JANE}"}}') == f'{{"n": {number}, "to": "<EMAIL_ADDRESS>"}}'


def test_beside_a_renamed_key_everything_is_spelt_as_before() -> None:
    rest = r'"half": "\ud83d", "far": 1e400, "long": 12345678901234567890.5,  "deep": {"a": {}}'
    assert cleaned(f'{{"{JANE}": 1, "joe@acme.com": 2, {rest}}}') == (
        f'{{"<EMAIL_ADDRESS>": 1, "<EMAIL_ADDRESS> 2": 2, {rest}}}'
    )


@pytest.mark.parametrize("key", ["handy", "msisdn", "whatsapp", "telefon", "mobile_phone"])
def test_a_key_that_announces_a_telephone_number_is_enough(key: str) -> None:
    assert json.loads(cleaned(f'{{"{key}": 5550100}}')) == {key: 0}


@pytest.mark.parametrize("key", ["password", "db_password", "apiKey", "clientSecret", "auth-token"])
def test_a_key_that_announces_a_credential_is_enough(key: str) -> None:
    assert json.loads(cleaned(f'{{"{key}": "Hunter22!x", "n": "Hunter22!x"}}')) == {
        key: "<SECRET>",
        "n": "Hunter22!x",
    }
    assert cleaned(f'{{"{key}": "required", "{key}_help": "x12345!"}}').count("<SECRET>") == 0


def test_a_key_that_stands_twice_hides_nothing() -> None:
    assert cleaned(f'{{"a": "{JANE}", "a": "x"}}') == '{"a": "<EMAIL_ADDRESS>", "a": "x"}'


def test_what_is_no_object_is_redacted_as_it_is_read() -> None:
    assert cleaned(r'"jane\u0040acme.com"') == '"<EMAIL_ADDRESS>"'
    assert cleaned(str(CARD)) == "<CREDIT_CARD>"
    assert cleaned(rf"[{{ no JSON: jane\u0040acme.com, {CARD}") == (
        "[{ no JSON: <EMAIL_ADDRESS>, <CREDIT_CARD>"
    )
    deep = "[" * 900 + r'"jane\u0040acme.com"' + "]" * 900
    assert cleaned(deep) == "[" * 900 + '"<EMAIL_ADDRESS>"' + "]" * 900


def test_the_projects_own_words_stay() -> None:
    answer = json.dumps({"desk@acme.com": "help@acme.com", "to": f"help@acme.com or {JANE}"})
    assert json.loads(cleaned(answer, own_words={"desk@acme.com", "help@acme.com"})) == {
        "desk@acme.com": "help@acme.com",
        "to": "<EMAIL_ADDRESS> or <EMAIL_ADDRESS>",
    }


def test_half_of_a_surrogate_pair_ends_nothing() -> None:
    assert cleaned(rf'["\ud83d {JANE}"]') == '["\ufffd <EMAIL_ADDRESS>"]'
    assert cleaned(r'["\ud83d"]') == r'["\ud83d"]'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(st.lists(JSON) | st.dictionaries(st.text(), JSON), st.booleans())
def test_all_parts_are_seen_and_what_stays_stays(value: object, escaped: bool) -> None:
    answer = json.dumps(value, ensure_ascii=escaped)
    parts = parts_of(answer)
    assert with_parts(answer, parts, [part.text for part in parts]) == answer
    renamed = with_parts(answer, parts, [f"x{n}" for n in range(len(parts))])
    strings = [part for part in parts if part.kind in (Kind.STRING, Kind.KEY)]
    assert len([part for part in parts_of(renamed) if part.kind in (Kind.STRING, Kind.KEY)]) == len(strings)
    assert all(part.text in {f"x{n}" for n in range(len(parts))} | {"0"} for part in parts_of(renamed))
