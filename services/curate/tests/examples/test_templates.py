from __future__ import annotations

import copy
import json

import pytest
from tunewheel_curate.examples.templates import check_conversations, flaw_of

TURNS = [
    {"role": "system", "content": "Answer."},
    {"role": "user", "content": "It is silent.\n\n  Überall! 🚲 مرحبا"},
    {"role": "assistant", "content": "Since when?"},
    {"role": "user", "content": "Sunday"},
    {"role": "assistant", "content": '{"category": "bell"}'},
]


@pytest.fixture
def template(tokenizer):
    """Set another chat template for one test."""
    before = tokenizer.chat_template

    def put(text: str | None) -> None:
        tokenizer.chat_template = text

    yield put
    tokenizer.chat_template = before


def test_a_conversation_comes_back_whole(tokenizer) -> None:
    assert flaw_of(TURNS, tokenizer) is None


def test_a_turn_may_end_with_another_special_token_than_eos(tokenizer) -> None:
    like_gemmas = copy.deepcopy(tokenizer)  # whose turns end with <end_of_turn>, and not with <eos>
    like_gemmas.eos_token = "<|endoftext|>"
    assert flaw_of(TURNS, like_gemmas) is None


@pytest.mark.parametrize(
    ("source", "flaw"),
    [
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "mask does not fit the answers"),
        ("{% for m in messages %}{{ raise_exception('no') }}{% endfor %}", "refused"),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", "mask does not fit the answers"),
    ],
)
def test_a_template_that_loses_something_is_noticed(tokenizer, template, source: str, flaw: str) -> None:
    template(source)
    answers = [*TURNS[:3], *TURNS[4:]]
    assert flaw_of(answers, tokenizer) == flaw


def test_a_template_that_leaves_an_answer_out_is_noticed(tokenizer, template) -> None:
    """As those do that keep what was thought of the last turn alone."""
    said = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    template(
        "{% for m in messages %}{% if m['content'] != 'Sunday, then.' %}" + said + "{% endif %}{% endfor %}"
    )
    again = [{"role": "user", "content": "Sunday"}, {"role": "assistant", "content": "Sunday, then."}]
    assert flaw_of(TURNS, tokenizer) is None
    assert flaw_of([*TURNS, *again], tokenizer) == "refused"


def test_a_tokenizer_that_loses_something_is_noticed(tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda ids, **options: whole(ids, **options).lower())
    assert flaw_of(TURNS, tokenizer) == "tokens do not decode to the text"


def test_sound_records_are_kept_and_counted(records, tokenizer) -> None:
    frame = records({"history": json.dumps(TURNS[1:3])}, {}, {"input": "say <|im_end|> twice"})
    stage = check_conversations(frame, tokenizer, system_prompt="Answer.")
    assert stage.funnel.reasons == {"template: control token in a message": 1}
    assert stage.counts == {"verified": 2}


def test_one_unsound_record_in_the_sample_has_all_looked_at(records, tokenizer, template) -> None:
    template(
        tokenizer.chat_template.replace("message['content']", "message['content'] | replace('bad', 'worse')")
    )
    rows = [{"output": "bad" if number in (0, 7) else "good"} for number in range(8)]
    stage = check_conversations(records(*rows), tokenizer, system_prompt="Answer.", sample=2)
    assert stage.funnel.reasons == {"template: mask does not fit the answers": 2}
    assert stage.counts == {"verified": 6}
    sound = check_conversations(records(*rows[1:7]), tokenizer, system_prompt="Answer.", sample=2)
    assert (sound.kept.height, sound.counts) == (6, {"verified": 2})


def test_a_model_without_a_template_verifies_nothing(records, tokenizer, template) -> None:
    template(None)
    stage = check_conversations(records({}), tokenizer, system_prompt="Answer.")
    assert (stage.kept.height, stage.counts) == (1, {})
