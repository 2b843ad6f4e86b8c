"""Files of other tools: each form becomes examples, and says what it leaves out or refuses."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_cli.publishing.events import make_event
from tunewheel_cli.publishing.formats.form import LeftOut, Unfit
from tunewheel_cli.publishing.formats.recognition import FORMS
from tunewheel_cli.publishing.items import Found, Kind, Refusal, Source, SourceUnusable
from tunewheel_cli.publishing.sources import open_source
from tunewheel_contracts.event import Envelope
from tunewheel_local.connection import InvalidOption


def opened(folder: Path, *records: Any, maps: tuple[str, ...] = (), kind: Kind | None = None) -> Source:
    path = folder / "x.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records), "utf-8")
    return open_source(path, kind=kind, maps=maps, max_bytes=100_000)


def examples(source: Source) -> list[dict[str, Any]]:
    """Return what a reader of the events finds, without ids."""
    found: list[dict[str, Any]] = []
    for item in source:
        made = make_event(item, project="p", kind=None) if isinstance(item, Found) else item
        assert isinstance(made, Envelope), made
        found.append(
            made.data.model_dump(mode="json", exclude_defaults=True, exclude={"project", "example_id"})
        )
    return found


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def test_chat_becomes_an_example_for_every_answer_that_is_learnt(tmp_path: Path) -> None:
    short = {"messages": [turn("system", "Be kind."), turn("user", "hi"), turn("assistant", "hello")]}
    long = {
        "messages": [
            turn("assistant", "Welcome"),
            turn("user", "q1"),
            turn("assistant", "a1", weight=0),
            turn("user", [{"type": "text", "text": "q2"}, {"type": "text", "text": "more"}]),
            turn("assistant", "a2", weight=1),
            turn("user", "q3"),
            turn("user", "again"),
            turn("assistant", "a3"),
        ],
        "tools": [{"type": "function"}],
    }
    source = opened(tmp_path, short, long)
    one, two, three = examples(source)
    assert one == {"input": "hi", "output": "hello"}
    before = [turn("user", "q1"), turn("assistant", "a1")]
    assert two == {"input": "q2\nmore", "output": "a2", "messages": before, "group": two["group"]}
    assert three == {
        "input": "q3\nagain",
        "output": "a3",
        "messages": [*before, turn("user", "q2\nmore"), turn("assistant", "a2")],
        "group": two["group"],
    }
    assert source.form == "chat JSON (messages)"
    assert source.left.prompts == {"Be kind.": 1}
    assert len(source.notes) == 3, "system prompt, tools and greeting"


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            {"input": "q", "output": "a"},
        ),
        ({"talk": [["customer", "q"], ["agent", "a"]]}, {"input": "q", "output": "a"}),
        ({"instruction": "Say", "input": "dog", "output": "Hund"}, {"input": "Say\n\ndog", "output": "Hund"}),
        ({"instruction": "Sing", "input": "", "output": "la"}, {"input": "Sing", "output": "la"}),
        ({"instruction": "Why", "context": "C", "response": "R"}, {"input": "Why\n\nC", "output": "R"}),
        (
            {"instruction": "I", "instances": [{"input": "x", "output": "y"}]},
            {"input": "I\n\nx", "output": "y"},
        ),
        (
            {"instruction": "b", "input": "", "output": "c", "history": [["q", "a"]]},
            {"input": "b", "output": "c", "messages": [turn("user", "q"), turn("assistant", "a")]},
        ),
        ({"prompt": "q", "completion": "a"}, {"input": "q", "output": "a"}),
        (
            {"prompt": [turn("user", "q")], "completion": [turn("assistant", "a")]},
            {"input": "q", "output": "a"},
        ),
        ({"question": "q", "context": "c", "answer": 3}, {"input": "c\n\nq", "output": "3"}),
        ({"input": "q", "output": {"k": 1}}, {"input": "q", "output": {"k": 1}}),
        (
            {"prompt": "q", "chosen": "good", "rejected": "bad"},
            {"input": "q", "output": "good", "rejected_output": "bad"},
        ),
        (
            {
                "chosen": [turn("user", "q"), turn("assistant", "good")],
                "rejected": [turn("user", "q"), turn("assistant", "bad")],
            },
            {"input": "q", "output": "good", "rejected_output": "bad"},
        ),
        (
            {
                "chosen": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: good",
                "rejected": "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant: bad",
            },
            {
                "input": "r",
                "output": "good",
                "rejected_output": "bad",
                "messages": [turn("user", "q"), turn("assistant", "a")],
            },
        ),
        (
            {
                "conversations": [{"from": "human", "value": "q"}],
                "chosen": {"from": "gpt", "value": "good"},
                "rejected": {"from": "gpt", "value": "bad"},
            },
            {"input": "q", "output": "good", "rejected_output": "bad"},
        ),
        (
            {
                "input": {"messages": [turn("user", "q")], "tools": []},
                "preferred_output": [turn("assistant", "good")],
                "non_preferred_output": [turn("assistant", "bad")],
            },
            {"input": "q", "output": "good", "rejected_output": "bad"},
        ),
    ],
)
def test_a_record_of_each_form_becomes_an_example(
    tmp_path: Path, record: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert examples(opened(tmp_path, record)) == [expected]


def test_an_answer_to_avoid_that_is_the_right_one_is_left_out(tmp_path: Path) -> None:
    source = opened(tmp_path, {"prompt": "q", "chosen": "a", "rejected": "a"})
    assert examples(source) == [{"input": "q", "output": "a"}]
    assert len(source.notes) == 1


@pytest.mark.parametrize(
    ("message", "field", "word"),
    [
        (turn("tool", "42"), "messages.1", "tool"),
        (turn("assistant", None, tool_calls=[{"id": "1"}]), "messages.1", "tool"),
        (turn("assistant", [{"type": "image_url", "image_url": {}}]), "messages.1", "not text"),
        (turn("user", "no answer"), "messages", "no answer"),
    ],
)
def test_what_cannot_be_learnt_is_refused_by_its_place(
    tmp_path: Path, message: dict[str, Any], field: str, word: str
) -> None:
    good = {"messages": [turn("user", "q"), turn("assistant", "a")]}
    source = opened(tmp_path, good, {"messages": [turn("user", "q"), message]}, good)
    _, refusal, _ = source
    assert isinstance(refusal, Refusal)
    assert (refusal.line, refusal.field) == (2, field)
    assert word in refusal.reason


def test_maps_name_keys_of_json_by_their_path_and_the_parts_of_a_form(tmp_path: Path) -> None:
    record = {"q": {"text": "hi"}, "labels": ["x", "y"], "note": 1}
    source = opened(tmp_path, record, maps=("q.text=input", "labels.1=output.label"))
    assert examples(source) == [{"input": "hi", "output": {"label": "y"}}]
    chat = opened(
        tmp_path, {"dialog": [turn("user", "q"), turn("assistant", "a")]}, maps=("dialog=messages",)
    )
    assert examples(chat) == [{"input": "q", "output": "a"}]
    with pytest.raises(InvalidOption, match="nothing at 'nope'; it has q, labels, note"):
        opened(tmp_path, record, maps=("nope=input",))


def test_records_with_fields_of_events_stay_as_they_were(tmp_path: Path) -> None:
    ticket = {"ticket_id": "T", "body": "b", "question": "q", "answer": "a"}
    assert [item.fields for item in opened(tmp_path, ticket) if isinstance(item, Found)] == [ticket]
    example = {"input": "q", "output": "a", "group": "g", "messages": [turn("user", "x")]}
    (found,) = opened(tmp_path, example)
    (stated,) = opened(tmp_path, example, kind=Kind.EXAMPLE)
    assert isinstance(found, Found)
    assert isinstance(stated, Found)
    assert found.fields == stated.fields == example
    made = [
        make_event(item, project="p", kind=kind) for item, kind in ((found, None), (stated, Kind.EXAMPLE))
    ]
    assert isinstance(made[0], Envelope)
    assert isinstance(made[1], Envelope)
    assert made[0].id == made[1].id


def test_chat_that_is_said_to_be_tickets_is_told_apart_at_once(tmp_path: Path) -> None:
    chat = {"messages": [turn("user", "q"), turn("assistant", "a")]}
    with pytest.raises(InvalidOption, match=r"--kind ticket: .*looks like chat JSON"):
        opened(tmp_path, chat, kind=Kind.TICKET)
    with pytest.raises(InvalidOption, match="has no body; map it"):
        opened(tmp_path, {"text": "x"}, kind=Kind.TICKET)
    with pytest.raises(SourceUnusable, match="keys: a, b"):
        opened(tmp_path, *[{"a": 1, "b": 2}] * 150)


def test_json_may_be_a_list_an_object_with_one_or_lines(tmp_path: Path) -> None:
    pair = {"prompt": "q", "completion": "a"}
    for number, text in enumerate(
        (json.dumps([pair, pair], indent=1), json.dumps({"version": 1, "data": [pair, pair]}),
         f"{json.dumps(pair)}\n{json.dumps(pair)}\n")
    ):  # fmt: skip
        for name in ("x.json", "x.jsonl")[: 1 if number else 2]:
            path = tmp_path / name
            path.write_bytes(b"\xef\xbb\xbf" + text.encode())
            assert len(examples(open_source(path, kind=None, maps=(), max_bytes=1_000))) == 2, text
    path = tmp_path / "x.json"
    path.write_text('{"a": ')
    with pytest.raises(SourceUnusable, match="is not JSON"):
        list(open_source(path, kind=None, maps=(), max_bytes=1_000))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "messages", "input", "output", "weight"]),
            inner,
        )
    ),
    max_leaves=12,
)
KEYS = sorted({*frozenset[str]().union(*(form.keys for form in FORMS)), "system", "history", "instances"})


@given(st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5))
def test_no_record_breaks_a_form(record: dict[str, Any]) -> None:
    for form in FORMS:
        form.fits(record)
        with suppress(Unfit):  # a file may hold other records than its first ones
            list(form.examples(record, LeftOut()))
