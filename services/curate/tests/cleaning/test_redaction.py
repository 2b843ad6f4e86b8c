from __future__ import annotations

import json
import re

import polars as pl
import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_curate.cleaning.redaction import CUT, MOST_CUT, redact_records


def test_strings_inside_json_outputs_are_redacted(records) -> None:
    output = json.dumps({"category": "bell", "reply": 'Mail to a@example.com "now"'})
    stage = redact_records(
        records({"output": output, "title": "b@example.com"}, {"output": None}), PiiPolicy()
    )
    first = stage.kept.row(0, named=True)
    assert json.loads(first["output"])["reply"] == 'Mail to <EMAIL_ADDRESS> "now"'
    assert first["title"] == "<EMAIL_ADDRESS>"
    assert stage.counts == {"EMAIL_ADDRESS": 2}


def test_a_project_may_reject_or_keep(records) -> None:
    frame = records({"input": "a@example.com"}, {})
    assert redact_records(frame, PiiPolicy(action="reject")).funnel.reasons == {"pii": 1}
    assert redact_records(frame, PiiPolicy(action="keep")).kept.equals(frame)


@pytest.mark.parametrize("place", [MOST_CUT - 8, MOST_CUT - 15])
def test_a_long_cut_text_is_shortened_only_after_it_is_redacted(records, place: int) -> None:
    cut = f"{'x' * (place - 1)} jane.roe@example.com below"
    frame = records({}, {}).with_columns(pl.Series(CUT, [cut, None]))
    long, none = redact_records(frame, PiiPolicy()).kept[CUT]
    assert (len(long), none) == (MOST_CUT, None)
    assert "jane" not in long
    assert redact_records(frame, PiiPolicy(action="keep")).kept[CUT].to_list() == [cut[:MOST_CUT], None]


def pseudonyms(records, *rows: dict[str, str]) -> list[str]:
    stage = redact_records(records(*rows), PiiPolicy(action="pseudonymise"))
    return stage.kept["input"].to_list()


def test_stand_ins_agree_within_a_group_and_only_there(records) -> None:
    one, two, other, same = pseudonyms(
        records,
        {"input": "from a@example.com", "group": "thread-1"},
        {"input": "A@EXAMPLE.com again, not b@example.com", "group": "thread-1"},
        {"input": "from a@example.com", "group": "thread-2"},
        {"input": "from a@example.com", "group": "thread-1"},
    )
    stand_in = one.removeprefix("from ")
    assert re.fullmatch(r"<EMAIL_ADDRESS_[0-9a-f]{4}>", stand_in)
    assert same == one
    assert two.startswith(f"{stand_in} again, not <EMAIL_ADDRESS_")
    assert two.count(stand_in) == 1
    assert other != one


def test_stand_ins_agree_between_question_and_answer(records) -> None:
    output = json.dumps({"category": "bell", "reply": "We wrote to a@example.com"})
    stage = redact_records(
        records({"input": "a@example.com", "output": output}), PiiPolicy(action="pseudonymise")
    )
    row = stage.kept.row(0, named=True)
    assert json.loads(row["output"])["reply"] == f"We wrote to {row['input']}"
    assert redact_records(stage.kept, PiiPolicy(action="pseudonymise")).kept.equals(stage.kept)


def test_stand_ins_do_not_depend_on_company(records) -> None:
    row = {"input": "call +44 20 7946 0321", "group": "g"}
    alone = pseudonyms(records, row)[0]
    assert pseudonyms(records, {"input": "ring +44 20 7946 0999", "group": "g"}, row)[1] == alone


def test_a_secret_keys_the_stand_ins_and_the_same_secret_gives_the_same(records) -> None:
    frame = records(
        {"input": "from a@example.com", "history": '[{"content": "a@example.com", "role": "user"}]'}
    )

    def told(secret: str) -> tuple[str, str]:
        stage = redact_records(frame, PiiPolicy(action="pseudonymise"), secret=secret)
        return stage.kept["input"][0], json.loads(stage.kept["history"][0])[0]["content"]

    here, there, elsewhere, without = (told(s) for s in ("a long secret", "a long secret", "another", ""))
    assert here == there
    assert here[0] == f"from {here[1]}"
    assert len({here, elsewhere, without}) == 3
    assert without[0] == pseudonyms(records, {"input": "from a@example.com"})[0]


CUSTOMER = {"name": "CUSTOMER_ID", "regex": r"\bC-\d{6}\b"}


def test_project_patterns_are_redacted_in_texts_and_answers(records) -> None:
    output = json.dumps({"category": "bell", "reply": "line one\nC-123456: XC-123456 stays"})
    policy = PiiPolicy.model_validate(
        {"patterns": [CUSTOMER, {"name": "LOCKER", "regex": "(?i)locker [a-z]?[0-9]+"}]}
    )
    stage = redact_records(
        records({"input": "XC-123456 and C-123456, C-1234567; C-654321 in Locker B7", "output": output}),
        policy,
    )
    row = stage.kept.row(0, named=True)
    assert row["input"] == "XC-123456 and <CUSTOMER_ID>, C-1234567; <CUSTOMER_ID> in <LOCKER>"
    assert json.loads(row["output"])["reply"] == "line one\n<CUSTOMER_ID>: XC-123456 stays"
    assert stage.counts == {"CUSTOMER_ID": 3, "LOCKER": 1}


def test_a_mark_in_the_text_hides_nothing(records) -> None:
    policy = PiiPolicy.model_validate({"patterns": [CUSTOMER]})
    for mark in "\ufdd0\ufdd1":
        stage = redact_records(records({"input": f"a {mark} C-123456 {mark}{mark}"}), policy)
        assert stage.kept["input"].to_list() == [f"a {mark} <CUSTOMER_ID> {mark}{mark}"]


def test_empty_matches_are_none(records) -> None:
    policy = PiiPolicy.model_validate({"patterns": [{"name": "ODD", "regex": r"\b"}]})
    assert redact_records(records({"input": "left alone"}), policy).kept["input"].to_list() == ["left alone"]


def test_hostile_patterns_and_texts_take_linear_work(records) -> None:
    policy = PiiPolicy.model_validate({"patterns": [{"name": "EVIL", "regex": "(a+)+(b|c)+$"}]})
    hostile = [
        "a" * 100_000,
        "1-" * 50_000,
        "1" * 100_000,
        ("1 " * 7 + "x") * 5_000,
        "@" * 100_000,
        "AB12" * 25_000,
    ]
    stage = redact_records(records(*({"input": text} for text in hostile)), policy)
    assert stage.kept.height == len(hostile)


def test_rejected_answers_and_deep_ones_are_redacted_too(records) -> None:
    deep = "[" * 900 + '"a@example.com"' + "]" * 900
    stage = redact_records(records({"rejected_output": "write a@example.com", "output": deep}), PiiPolicy())
    row = stage.kept.row(0, named=True)
    assert row["rejected_output"] == "write <EMAIL_ADDRESS>"
    assert row["output"] == deep.replace("a@example.com", "<EMAIL_ADDRESS>")


def test_answers_that_hide_behind_escapes_are_redacted(records) -> None:
    output = '{"category": "bell", "reply": "a\\u0040example.com", "more": ["\\u0043all 60-56-85-91"]}'
    row = redact_records(records({"output": output}), PiiPolicy()).kept.row(0, named=True)
    assert json.loads(row["output"]) == {
        "category": "bell", "reply": "<EMAIL_ADDRESS>", "more": ["Call <PHONE_NUMBER>"],
    }  # fmt: skip


def test_a_pattern_may_look_for_the_ends_of_a_string_in_json(records) -> None:
    policy = PiiPolicy.model_validate({"patterns": [{"name": "BADGE", "regex": r"^B\d+$"}]})
    row = redact_records(records({"output": '{"a": "B12", "b": "see B12"}'}), policy).kept.row(0, named=True)
    assert json.loads(row["output"]) == {"a": "<BADGE>", "b": "see B12"}


def test_an_unknown_entity_is_refused_with_the_choice(records) -> None:
    with pytest.raises(InvalidSpec, match=r"dataset\.pii\.entities.*PERSON.*EMAIL_ADDRESS"):
        redact_records(records({}), PiiPolicy(entities=("PERSON",)))


def test_a_card_is_redacted_that_a_person_spread_over_turns(records) -> None:
    history = [
        {"content": "it starts 4111 1111", "role": "user"},
        {"content": "and the rest?", "role": "assistant"},
    ]
    frame = records({"input": "1111 1111", "history": json.dumps(history)}, {"input": "1111 1111"})
    stage = redact_records(frame, PiiPolicy())
    assert stage.kept["input"].to_list() == ["<CREDIT_CARD>", "1111 1111"]
    assert json.loads(stage.kept["history"][0])[0]["content"] == "it starts <CREDIT_CARD>"
    assert stage.counts == {"CREDIT_CARD": 2}
    rejected = redact_records(frame, PiiPolicy(action="reject"))
    assert rejected.funnel.reasons == {"pii": 1}


def test_secrets_names_and_addresses_are_replaced_unless_the_spec_says_otherwise(records) -> None:
    asked = "I am Anna Berg, 12 Baker Street; my password is tulip#42"
    frame = records({"input": asked, "output": '{"reply": "Dear Anna Berg, use tulip"}'})
    row = redact_records(frame, PiiPolicy()).kept.row(0, named=True)
    assert row["input"] == "I am <PERSON>, <LOCATION>; my password is <SECRET>"
    assert json.loads(row["output"]) == {"reply": "Dear <PERSON>, use tulip"}
    kept = PiiPolicy(secrets=False, names=False, addresses=False)
    assert redact_records(frame, kept).kept["input"].to_list() == [asked]
