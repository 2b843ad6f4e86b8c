from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_outputs import metrics
from tunewheel_outputs.metric import Metric, Row, Score
from tunewheel_outputs.metrics import known_metrics, metrics_for

SCHEMA = {"type": "object", "properties": {"category": {"enum": ["a", "b"]}, "n": {}, "tags": {}}}
VALUES = {"rule": "allowed_values", "values": ["a", "b"]}
CITED = {"rule": "cited", "pattern": r"LM-\d+"}
NEAR = {"absolute": 0.5, "relative": 0.1}


def task(**fields: Any) -> TaskSpec:
    return TaskSpec.model_validate({"system_prompt": "s"} | fields)


BY_JSON = task(output_schema=SCHEMA, label_field="category", output_rules=[CITED], number_tolerance=NEAR)
BY_TEXT = task(
    number_tolerance=NEAR,
    refusal="^Sorry",
    glossary={"required": [{"term": "Acme", "when": "who"}], "forbidden": ["guarantee"]},
    output_rules=[VALUES, CITED],
)


def score(name: str, of: TaskSpec, output: str, expected: str = "", asked: str = "", **row: Any) -> Any:
    scored = known_metrics()[name].scorer(of, frozenset({"acme", "pump"}))
    return scored(Row(output=output, expected=expected, asked=asked, **row))


CASES: list[tuple[str, TaskSpec, tuple[str, ...], float | None]] = [
    ("valid_output", BY_JSON, ('{"category": "a"}',), 1),
    ("valid_output", BY_JSON, ('{"category": "c"}',), 0),
    ("valid_output", BY_JSON, ('{"category": "a", "n": "LM-1"}', "", "LM-2?"), 0),
    ("valid_output", BY_TEXT, ("a",), 1),
    ("valid_output", BY_TEXT, ("c",), 0),
    ("rule_compliance", BY_TEXT, ("c",), 0.5),
    ("rule_compliance", BY_TEXT, ("a",), 1),
    ("label_accuracy", BY_JSON, ('{"category": "a"}', '{"category": "a", "n": 1}'), 1),
    ("label_accuracy", BY_JSON, ("a", '{"category": "a"}'), 0),
    ("label_accuracy", BY_TEXT, (" a\n", "a"), 1),
    ("label_accuracy", BY_TEXT, ("A", "a"), 0),
    ("exact_fields", BY_JSON, ('{"n": 1.0, "tags": [1], "x": 0}', '{"tags": [1], "n": 1}'), 1),
    ("exact_fields", BY_JSON, ('{"n": 1}', '{"tags": [1], "n": 1}'), 0),
    ("exact_fields", BY_JSON, ('{"n": true}', '{"n": 1}'), 0),
    ("exact_fields", BY_JSON, ("[1]", "[1]"), 1),
    ("exact_fields", BY_JSON, ("[1]", "text"), None),
    ("set_match", BY_JSON, ('{"tags": ["y", "x", "z"]}', '{"tags": ["x", "y"]}'), 0.8),
    ("set_match", BY_JSON, ('{"tags": [{"a": 1.0}]}', '{"tags": [{"a": 1}]}'), 1),
    ("set_match", BY_JSON, ('{"tags": []}', '{"tags": []}'), 1),
    ("set_match", BY_JSON, ('{"tags": "x"}', '{"tags": ["x"], "n": {"m": [1]}}'), 0),
    ("set_match", BY_JSON, ("[1, 1]", "[1, 1, 1]"), 0.8),
    ("set_match", BY_JSON, ('{"tags": ["x"]}', '{"n": 1}'), None),
    ("numeric_accuracy", BY_JSON, ('{"n": 10.9, "tags": [3]}', '{"n": 10, "tags": [2]}'), 0.5),
    ("numeric_accuracy", BY_JSON, ('{"n": true}', '{"n": 1}'), 0),
    ("numeric_accuracy", BY_JSON, ('{"n": 1e308}', '{"n": 1' + "0" * 400 + "}"), 0),
    ("numeric_accuracy", BY_JSON, ('{"n": 1' + "0" * 400 + "}",) * 2, 1),
    ("numeric_accuracy", BY_JSON, ('{"n": 1}', '{"n": "1"}'), None),
    ("numeric_accuracy", BY_TEXT, ("It is 104.9 or v2", "100 and 7"), 0.5),
    ("numeric_accuracy", BY_TEXT, ("-3", "none"), None),
    ("rouge_1", BY_TEXT, ("the cat", "the dog"), 0.5),
    ("rouge_2", BY_TEXT, ("the cat sat", "the cat ran"), 0.5),
    ("rouge_l", BY_TEXT, ("the fat cat", "the cat"), 0.8),
    ("chrf", BY_TEXT, ("the cat", "the cat"), 1),
    ("chrf", BY_TEXT, ("xyz", "the cat"), 0),
    ("semantic_similarity", BY_TEXT, ("the cat", "the cat"), 1),
    ("semantic_similarity", BY_JSON, ('{"n": "the cat"}', '{"tags": "the cat"}'), 1),
    ("semantic_similarity", BY_TEXT, ("", "the cat"), 0),
    ("answer_length", BY_TEXT, ("1234", "12345678"), 0.5),
    ("answer_length", BY_TEXT, ("12345678", "1234"), 0.5),
    ("domain_language", BY_TEXT, ("We do.", "", "Who are you?"), 0),
    ("domain_language", BY_TEXT, ("acme.", "", "Who are you?"), 1),
    ("domain_language", BY_TEXT, ("A guarantee.",), 0),
    ("invented_terms", BY_TEXT, ("Your Acme pump LM-0042 leaks", "", "My LM-0042"), 0),
    ("invented_terms", BY_TEXT, ("It costs 17 EUR", "17 EUR", ""), 0),
    ("invented_terms", BY_TEXT, ("Your order LM-0043",), 1),
    ("invented_terms", BY_JSON, ('{"LM-1": "see Turbo 3000"}',), 1),
    ("invented_terms", BY_JSON, ('{"LM-1": "a pump"}',), 0),
    ("refusal_rate", BY_TEXT, ("Sorry, no.", "Sorry, ask a doctor."), 1),
    ("refusal_rate", BY_TEXT, ("Take two.", "Sorry, ask a doctor."), 0),
    ("refusal_rate", BY_TEXT, ("Sorry", "Take two."), None),
]

SHOWN = ("Refunds take 14 working days.", "Lockers open at 6.")
GROUNDED = [
    (BY_TEXT, "A refund takes 14 working days.", "Fourteen days.", 1),
    (BY_TEXT, "A refund takes 30 working days.", "Fourteen days.", 0),
    (BY_TEXT, "Lockers do not open at 6.", "At six.", 0),
    (BY_TEXT, "Lockers open at 14.", "At six.", 0),
    (BY_TEXT, "Order 77 takes working days.", "Fourteen days.", 1),
    (BY_TEXT, "Goblins take working days.", "Fourteen days.", 0.75),
    (BY_JSON, '{"category": "zzz", "n": "Refunds take 14 days"}', '{"n": "In 14 days."}', 1),
    (BY_JSON, '{"category": "a"}', '{"category": "a"}', None),
]


@pytest.mark.parametrize(("of", "output", "expected", "wanted"), GROUNDED)
def test_groundedness_is_about_what_stood_in_the_prompt(
    of: TaskSpec, output: str, expected: str, wanted: float | None
) -> None:
    found = score("groundedness", of, output, expected, "My order 77?", passages=SHOWN)
    assert found == wanted if wanted is None else found == pytest.approx(wanted)
    assert score("groundedness", of, output, expected) is None


@pytest.mark.parametrize(
    ("rank", "recall", "reciprocal", "gain"),
    [(1, 1, 1, 1), (3, 1, 1 / 3, 0.5), (4, 0, 0.25, 0), (None, 0, 0, 0)],
)
def test_a_ranking_is_scored_by_the_place_of_the_document(
    rank: int | None, recall: float, reciprocal: float, gain: float
) -> None:
    named = {"recall_at_k": recall, "mrr": reciprocal, "ndcg": gain}
    found = {name: score(name, BY_TEXT, "", rank=rank, top_k=3) for name in named}
    assert found == pytest.approx(named)


@pytest.mark.parametrize(("name", "of", "texts", "wanted"), CASES)
def test_a_row_is_scored(name: str, of: TaskSpec, texts: tuple[str, ...], wanted: float | None) -> None:
    found = score(name, of, *texts)
    assert found == wanted if wanted is None else found == pytest.approx(wanted)


def test_likelihood_is_weighed_by_tokens_or_by_characters() -> None:
    row = {"nll": 6.0, "tokens": 3}
    assert score("perplexity", BY_TEXT, "", "twelve chars", **row) == Score(6.0, 3)
    assert score("perplexity_per_character", BY_TEXT, "", "twelve chars", **row) == Score(6.0, 12)
    assert known_metrics()["perplexity"].per_token
    assert not known_metrics()["perplexity_per_character"].per_token


def test_other_words_for_the_same_are_more_similar_than_other_things() -> None:
    pairs = {
        "Your invoice is overdue.": ("The bill was not paid in time.", "The camera needs a battery."),
        "The customer wants money back.": ("The client asks for a refund.", "The lamp is blue."),
    }
    for expected, (near, far) in pairs.items():
        score_of = {said: score("semantic_similarity", BY_TEXT, said, expected) for said in (near, far)}
        assert score_of[near] > score_of[far] + 0.1


def test_the_regression_set_says_itself_what_is_right() -> None:
    assert [score("regression_accuracy", BY_TEXT, "", correct=hit) for hit in (True, False)] == [1, 0]


LONG = "Acme 3 words. " * 7_200
HOSTILE = {
    "empty": "",
    "100k characters": LONG,
    "one word of 100k": "a" * 100_000,
    "100k digits": "7" * 100_000,
    "not UTF-8": 'half \ud83d {"category": "\udc00"}',
    "half a pair in JSON": '{"category": "\\ud83d"}',
    "deep": "[" * 50_000 + "]" * 50_000,
    "90 levels": "[" * 90 + "]" * 90,
    "never closed": '{"n": [' * 20_000,
    "huge numbers": '{"n": 1e999, "tags": [1' + "0" * 4_000 + "]}",
    "huge whole number": '{"n": 1' + "0" * 4_000 + "}",
    "no numbers": '{"n": NaN}',
    "null": "null",
    "100k items": json.dumps({"tags": ["x"] * 20_000}),
}


@pytest.mark.parametrize("output", HOSTILE.values(), ids=HOSTILE.keys())
def test_every_metric_scores_every_answer(output: str) -> None:
    """A model says what it likes, and so may an expert: no answer ends an evaluation or costs minutes."""
    for metric in known_metrics().values():
        of = BY_JSON if metric.lacks(BY_JSON) is None else BY_TEXT
        scored = metric.scorer(of, frozenset())
        for expected in ('{"category": "a", "n": 3, "tags": ["x"]}', "Sorry, 3 words.", output[:10_000]):
            found = scored(
                Row(output=output, expected=expected, asked="Who?", nll=2.0, tokens=3, passages=(LONG,))
            )
            if found is None:
                continue
            value = math.exp(found.value / found.weight) if isinstance(found, Score) else found
            assert metric.lowest <= value <= (math.inf if metric.highest is None else metric.highest)
            assert metric.test != "proportion" or value in (0, 1)


def test_each_metric_says_what_it_is_and_has_a_case() -> None:
    elsewhere = {"perplexity", "perplexity_per_character", "regression_accuracy"}
    elsewhere |= {"groundedness", "judged", "recall_at_k", "mrr", "ndcg"}
    assert set(known_metrics()) == {name for name, *_ in CASES} | elsewhere
    for name, metric in known_metrics().items():
        assert Path(metrics.__path__[0], f"{name}.py").is_file()
        assert metric.about.endswith(".")
        assert metric.unit
        assert metric.lower_is_better == (name.startswith("perplexity") or name == "invented_terms")


def test_only_what_a_task_has_all_for_is_measured() -> None:
    found = set(metrics_for(task()))
    assert found >= {
        "answer_length", "chrf", "groundedness", "judged", "mrr", "ndcg", "perplexity",
        "perplexity_per_character", "recall_at_k", "regression_accuracy", "rouge_1", "rouge_2", "rouge_l",
        "semantic_similarity",
    }  # fmt: skip
    by_form = {"exact_fields", "set_match", "valid_output", "numeric_accuracy"}
    assert not found & (by_form | {"invented_terms"})
    assert set(metrics_for(BY_JSON)) >= by_form
    assert "invented_terms" in metrics_for(task(), frozenset({"invented_terms"}))


def test_a_new_metric_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "politeness.py").write_text(
        "from tunewheel_outputs.metric import Metric\n"
        "METRIC = Metric(name='politeness', about='Says please.', unit='fraction', test='proportion',\n"
        "    scorer=lambda task, corpus: lambda row: float('please' in row.output))\n"
    )
    monkeypatch.setattr(metrics, "__path__", [*metrics.__path__, str(tmp_path)])
    known_metrics.cache_clear()
    try:
        found = metrics_for(task())["politeness"]
        assert isinstance(found, Metric)
        assert score("politeness", task(), "please wait") == 1
    finally:
        known_metrics.cache_clear()
