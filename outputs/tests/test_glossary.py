from __future__ import annotations

import json

from tunewheel_contracts.formats.glossary import Glossary
from tunewheel_outputs.metrics.domain_language import GlossaryCheck

CHECK = GlossaryCheck(
    Glossary.model_validate(
        {
            "required": [{"term": "Acme"}, {"term": "credit note", "when": "refund"}],
            "forbidden": ["guarantee"],
            "deprecated": [{"term": "e-mail", "use": "mail"}],
        }
    )
)


def test_violations_of_the_glossary_are_named() -> None:
    assert CHECK.violations("ACME sends a credit note.", "May I have a refund?") == []
    assert CHECK.violations("Acme helps.", "May I have a refund?") == ["'credit note' is missing"]
    assert CHECK.violations("Acme helps.", "Hello") == []
    assert CHECK.violations("We guarantee an e mail. Guarantees!", "Hello") == [
        "'Acme' is missing",
        "'guarantee' is forbidden",
        "'e-mail' is deprecated: say 'mail'",
    ]


def test_of_json_the_values_count() -> None:
    answer = json.dumps({"guarantee": "no", "reply": {"lines": ["Acme", "credit", "note"]}})
    assert CHECK.violations(answer, "refund") == ["'credit note' is missing"]


def test_a_long_answer_takes_no_longer_per_word() -> None:
    words = GlossaryCheck(Glossary(forbidden=(" ".join(["a"] * 20 + ["b"]),)))
    assert words.violations("a " * 20_000, "") == []
