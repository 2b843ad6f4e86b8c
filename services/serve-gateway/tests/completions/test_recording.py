from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.formats.index import RetrievalUse
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_redaction.redaction import Redactor
from tunewheel_serve_gateway.chat_request import text_of_calls
from tunewheel_serve_gateway.completions import recording
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.kept import kept_as
from tunewheel_serve_gateway.completions.recording import Recorder
from tunewheel_serve_gateway.retrieval.retrieved import WITHOUT_INDEX, Retrieved

SCHEMA = {"type": "object", "properties": {"reply": {"type": "string"}}, "required": ["reply"]}
RULES = [{"rule": "pattern", "pattern": "^Dear", "field": "reply"}]
MAIL = "ann@example.org"
CARD = "4111111111111111"


def spec(policy: str = "full", **task: Any) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": "desk",
            "base_model": "any/model",
            "task": {"system_prompt": "Answer.", **task},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            "serving": {"log": policy},
        }
    )


def exchange(output: str = "Hello", *, asked: str = "hi", **values: Any) -> Exchange:
    messages = (("system", "Answer."), ("user", asked))
    made = Exchange("desk", "c-1", "desk-1", RouteRole.PRODUCTION, messages, user="C-7", prompt_tokens=5)
    made.output = output
    for name, value in values.items():
        setattr(made, name, value)
    made.finish(0.25)
    return made


def recorded(
    declared: ProjectSpec | None, *exchanges: Exchange, secret: str = "s"
) -> list[InferenceCompleted]:
    recorder = Recorder(lambda _: declared, lambda: secret)
    made = recorder.record(exchanges)
    assert all(one is not None for one in made)
    return [one.data() for one in made if one is not None]


@pytest.mark.parametrize(
    ("task", "output", "violations"),
    [
        ({}, "Hello", ()),
        ({}, " ", ("empty",)),
        ({"output_schema": SCHEMA}, '{"reply": "Dear A"}', ()),
        ({"output_schema": SCHEMA}, "Dear A", ("output_schema",)),
        ({"output_schema": SCHEMA, "output_rules": RULES}, '{"reply": "Hi"}', ("output_rules.0",)),
        ({"output_schema": SCHEMA, "output_rules": RULES}, "Hi", ("output_schema", "output_rules.0")),
    ],
)
@pytest.mark.parametrize("policy", ["full", "hashed", "off"])
def test_the_format_s_verdict_is_logged_whatever_else_is(
    policy: str, task: dict[str, Any], output: str, violations: tuple[str, ...]
):
    (data,) = recorded(spec(policy, **task), exchange(output))
    assert (data.format_valid, data.violations) == (not violations, violations)
    assert (data.prompt_tokens, data.latency_seconds, data.customer) == (5, 0.25, "C-7")


def test_the_format_of_failed_and_cancelled_answers_is_not_judged():
    failed, left = exchange(""), exchange("Hel")
    failed.fail("boom", "model")
    left.cancel()
    told = recorded(spec(output_schema=SCHEMA), failed, left)
    assert [(one.format_valid, one.fault, one.cancelled) for one in told] == [
        (None, "model", False),
        (None, None, True),
    ]


def test_of_a_project_without_a_declaration_no_text_is_logged():
    failed = exchange("")
    failed.fail(f"cannot read {MAIL}", "engine")
    told = recorded(None, exchange(), failed)
    assert [(one.texts, one.messages, one.output, one.format_valid) for one in told] == [
        ("off", (), "", None)
    ] * 2
    assert MAIL not in str(told[1].error)


def test_a_new_spec_counts_from_the_next_answer():
    declared = [spec()]
    recorder = Recorder(lambda _: declared[-1], lambda: "")
    before = recorder.record([exchange()])
    declared.append(spec(output_schema=SCHEMA))
    verdicts = [kept.data().format_valid for kept in (*before, *recorder.record([exchange()])) if kept]
    assert verdicts == [True, False]


def test_redacted_texts_hold_no_personal_data():
    failed = exchange("", asked="x")
    failed.fail(f"cannot read {MAIL}", "model")
    answer = f'{{"reply": "Dear {MAIL}"}}'
    told = recorded(spec("redacted"), exchange(answer, asked=f"I am {MAIL}"), failed, exchange(asked="bye"))
    assert [one.texts for one in told] == ["redacted"] * 3
    assert MAIL not in "".join(one.model_dump_json() for one in told)
    assert told[0].messages[-1].content == "I am <EMAIL_ADDRESS>"
    assert told[0].output == '{"reply": "Dear <EMAIL_ADDRESS>"}'
    assert told[1].error == "cannot read <EMAIL_ADDRESS>"
    assert (told[2].messages[-1].content, told[2].output) == ("bye", "Hello")


def called(arguments: str) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": "note", "arguments": arguments}}


def test_arguments_of_tool_calls_are_redacted_like_the_output():
    said = {"text": f"Card\n{CARD}", "customer": MAIL, "kept": 'a "b"\n7'}
    calls = [called(json.dumps(said)), called(f"Card\n{CARD}")]
    echoed, answered = exchange(asked=text_of_calls(calls)), exchange(text_of_calls(calls))
    for text in [
        recorded(spec("redacted"), echoed)[0].messages[-1].content,
        recorded(spec("redacted"), answered)[0].output,
    ]:
        first, second = (one["function"] for one in json.loads(text))
        assert json.loads(first["arguments"]) == {
            "text": "Card\n<CREDIT_CARD>",
            "customer": "<EMAIL_ADDRESS>",
            "kept": said["kept"],
        }
        assert (first["name"], second["arguments"]) == ("note", "Card\n<CREDIT_CARD>")


@pytest.mark.parametrize(
    "text", [json.dumps({"a": f"Card\n{CARD}"}), f'{{"a": "Card\\n{CARD}', f'"Card\\u000a{CARD}']
)
def test_an_escape_hides_nothing_from_redaction_also_where_json_breaks_off(text: str):
    whole = text_of_calls([called(text)])
    for said in (text, whole):
        (data,) = recorded(spec("redacted"), exchange(said, asked=said))
        assert CARD not in data.model_dump_json()
        assert data.model_dump_json().count("<CREDIT_CARD>") == 2


def test_an_escape_before_nothing_stays():
    path = r"C:\new\table is $\nabla$"
    (data,) = recorded(spec("redacted"), exchange(path, asked=path))
    assert (data.messages[-1].content, data.output) == (path, path)


def test_texts_that_cannot_be_redacted_are_not_logged():
    declared = spec("redacted")
    pii = declared.dataset.pii.model_copy(update={"entities": ("NO_SUCH",)})
    declared = declared.model_copy(update={"dataset": declared.dataset.model_copy(update={"pii": pii})})
    (data,) = recorded(declared, exchange(MAIL))
    assert (data.texts, data.messages, data.output) == ("off", (), "")


class Panic(BaseException):
    """As polars' PanicException: no Exception."""


@pytest.mark.parametrize("error", [RuntimeError, ImportError, Panic])
def test_whatever_redaction_raises_ends_no_thread_and_is_told_without_the_text(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any, **__: Any) -> None:
        raise error(MAIL)

    monkeypatch.setattr(Redactor, "clean_answers", broken)
    with capture_logs() as logs:
        told = recorded(spec("redacted"), exchange(MAIL), exchange(asked=MAIL))
    assert [(one.texts, one.messages, one.output) for one in told] == [("off", (), "")] * 2
    assert [(line["event"], line["error"]) for line in logs] == [
        ("completions_without_texts", error.__name__)
    ]
    assert MAIL not in str(logs)


def test_an_exchange_that_cannot_be_hashed_is_logged_without_texts_and_delays_no_other():
    told = recorded(spec("hashed"), exchange("\ud800"), exchange())
    assert [one.texts for one in told] == ["off", "hashed"]


def test_hashes_of_equal_texts_are_equal_and_of_another_installation_others():
    first, again, other = recorded(spec("hashed"), exchange(), exchange(), exchange("Bye"))
    assert first.messages == again.messages
    assert [message.role for message in first.messages] == ["system", "user"]
    assert first.output == again.output != other.output
    assert recorded(spec("hashed"), exchange(), secret="t")[0].output != first.output
    assert "Hello" not in first.model_dump_json()


def test_without_texts_an_error_keeps_only_our_own_words():
    engines, ours = exchange(""), exchange("")
    engines.fail(f"cannot read {MAIL}", "engine")
    ours.fail("cannot be served: no such rank", "model", ours=True)
    told = recorded(spec("off"), exchange(), engines, ours)
    assert [(one.messages, one.output) for one in told] == [((), "")] * 3
    assert [one.error for one in told] == [
        None,
        "failed by fault of the engine; the engine's message is left out, as serving.log asks",
        "cannot be served: no such rank",
    ]


def test_a_client_s_own_limit_counts_where_the_answer_ended_there():
    asked = ("system_prompt", "max_tokens")
    cut = exchange("Hel", finish_reason="length", overrides=asked)
    whole = exchange("Hello", finish_reason="stop", overrides=asked)
    told = recorded(spec(), cut, whole)
    assert [one.overrides for one in told] == [asked, ("system_prompt",)]


def test_redaction_is_prepared_for_the_projects_that_redact_and_its_failure_stops_nothing(
    monkeypatch: pytest.MonkeyPatch,
):
    asked = list[str]()

    def clean(spec: ProjectSpec, texts: Any, answers: Any) -> Any:
        asked.append(spec.project)
        raise RuntimeError("no patterns")

    monkeypatch.setattr(recording, "clean", clean)
    specs = {"a": spec("full"), "b": spec("redacted")}
    Recorder(specs.get, lambda: "s").prepare_redaction(["a", "b", "undeclared"])
    assert asked == ["desk"]


def confident() -> Exchange:
    made = exchange("Hello", scored=[("Hel", -0.1), ("lo", -0.2)])
    made.overrides = ("temperature", "max_tokens")
    return made


def failed() -> Exchange:
    made = exchange("", first_token_seconds=0.125, queue_seconds=1e-7, streamed=True, client="app-1")
    made.fail("bôom\u2028", "model")
    return made


def left() -> Exchange:
    made = exchange("Hel", asked="é🙂\0", shadow_of="c-0", pinned=True, role=RouteRole.SHADOW)
    made.cancel()
    return made


def grounded() -> Exchange:
    use = RetrievalUse(index_id="i-1", passage_ids=("p-1", "p-2"), scores=(0.5, 1e-7), milliseconds=2.5)
    return exchange(retrieved=Retrieved("Passages.", "", [], use))


def ungrounded() -> Exchange:
    return exchange(retrieved=WITHOUT_INDEX)


@pytest.mark.parametrize(
    "make", [exchange, confident, failed, left, grounded, ungrounded], ids=lambda make: make.__name__
)
@pytest.mark.parametrize("policy", ["full", "hashed", "off"])
def test_a_record_is_what_the_model_of_the_event_would_write(make: Any, policy: str):
    (kept,) = Recorder(lambda _: spec(policy, output_schema=SCHEMA), lambda: "s").record([make()])
    assert kept is not None
    written = new_event(kept.data(), source="/tunewheel/serve-gateway")
    expected = written.to_kafka()
    assert json.loads(kept.record.value) == json.loads(expected.value)
    ours, theirs = ({**one.headers, "ce_time": b""} for one in (kept.record, expected))
    assert ours == theirs
    assert (kept.record.topic, kept.record.key) == (expected.topic, expected.key)
    assert kept_as(written).completed_at == pytest.approx(kept.completed_at, abs=1e-6)
    assert replace(kept_as(written), record=kept.record, completed_at=kept.completed_at) == kept
    read = Envelope.from_kafka(InferenceCompleted, kept.record.value, kept.record.headers)
    assert read.data == kept.data()


def test_every_field_of_the_event_is_written():
    made = confident()
    made.certainty, made.retrieved, made.finish_reason = 0.75, grounded().retrieved, "length"
    made.answered_by = "chatcmpl-2"
    (kept,) = Recorder(lambda _: spec(), lambda: "s").record([made])
    assert kept is not None
    assert set(json.loads(kept.record.value)) == set(InferenceCompleted.model_fields)
    assert (kept.data().certainty, kept.data().answered_by) == (0.75, "chatcmpl-2")


@pytest.mark.parametrize(
    "values", [{"output": "x" * 1_000_001}, {"output": "\ud800"}, {"client": "a\nb"}, {"client": ""}]
)
def test_what_would_be_no_event_is_refused(values: dict[str, Any]):
    with capture_logs() as logs:
        assert Recorder(lambda _: spec(), lambda: "s").record([exchange(**values)]) == [None]
    assert [line["event"] for line in logs] == ["completion_refused"]


@pytest.mark.parametrize(
    ("counted", "prompt", "answer"),
    [
        ({"prompt_tokens": 5, "completion_tokens": 7.0}, 5, 7),
        ({"prompt_tokens": -1, "completion_tokens": "7"}, 0, 0),
        ({"prompt_tokens": [1], "completion_tokens": 1e300}, 0, 0),
    ],
)
def test_no_completion_is_lost_for_what_its_engine_counts(counted: Any, prompt: int, answer: int):
    made = exchange()
    choice = {"message": {"content": "Hello"}, "finish_reason": {"a": 1}}
    made.take({"choices": [choice], "usage": counted})
    (data,) = recorded(spec(), made)
    assert (data.prompt_tokens, data.completion_tokens, data.finish_reason) == (prompt, answer, "")
