from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidSpec, first_complaint
from tunewheel_contracts.formats.glossary import Glossary, TermFinder
from tunewheel_contracts.formats.spec import TaskSpec, parse_spec

SPEC: dict[str, Any] = {
    "project": "shop",
    "base_model": "b",
    "task": {"system_prompt": "Help."},
    "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
}


@pytest.mark.parametrize(
    ("glossary", "field", "word"),
    [
        ({"required": [{"term": "Refund"}], "forbidden": ["refund"]}, "required.0.term", "'refund'"),
        ({"required": [{"term": "full refund"}], "forbidden": ["x", "REFUND"]}, "required.0.term", "REFUND"),
        (
            {"required": [{"term": "e-mail"}], "deprecated": [{"term": "e mail", "use": "mail"}]},
            "required.0.term",
            "'e mail'",
        ),
        (
            {"deprecated": [{"term": "a", "use": "b"}, {"term": "b", "use": "c"}]},
            "deprecated.0.use",
            "'b'",
        ),
        ({"forbidden": ["b"], "deprecated": [{"term": "a", "use": "b"}]}, "deprecated.0.use", "'b'"),
        ({"deprecated": [{"term": "a", "use": "A"}]}, "deprecated.0.use", "another"),
        ({"forbidden": ["a"], "deprecated": [{"term": "A", "use": "c"}]}, "deprecated.0.term", "keep one"),
        (
            {"deprecated": [{"term": "a", "use": "b"}, {"term": "A", "use": "c"}]},
            "deprecated.1.term",
            "keep one",
        ),
        ({"forbidden": ["..."]}, "forbidden.0", "word"),
        ({"required": [{"term": "a", "when": "?"}]}, "required.0.when", "word"),
        ({"required": [{"term": "a", "with": "b"}]}, "required.0.with", "no known field"),
    ],
)
def test_a_glossary_that_contradicts_itself_is_refused(
    glossary: dict[str, Any], field: str, word: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        Glossary.model_validate(glossary)
    assert first_complaint(caught.value)[0] == field
    assert word in first_complaint(caught.value)[1]
    with pytest.raises(InvalidSpec, match=rf"^task\.glossary\.{field}: "):
        parse_spec(yaml.safe_dump(SPEC | {"task": {"system_prompt": "s", "glossary": glossary}}))


def test_terms_are_found_as_whole_words_whatever_their_case() -> None:
    finder = TermFinder(["return label", "Label", "Straße", "café"])
    assert finder.find("Your RETURN-LABEL is here") == {"return label", "Label"}
    assert finder.find("labels, returns label s") == {"Label"}
    assert finder.find("die STRASSE, cafe\u0301") == {"Straße", "café"}
    assert finder.find("return to label 7") == {"Label"}
    assert finder.find("") == TermFinder(()).find("a") == set()


def test_a_spec_without_what_is_new_keeps_its_hash() -> None:
    dumped = TaskSpec(system_prompt="s").model_dump(mode="json")
    assert not {"glossary", "number_tolerance", "refusal"} & dumped.keys()
    told = {"glossary": {"forbidden": ["a"]}, "number_tolerance": {"absolute": 1}, "refusal": "^Sorry"}
    task = TaskSpec.model_validate(dumped | told)
    assert TaskSpec.model_validate(task.model_dump(mode="json")) == task
    assert told.keys() <= task.model_dump(mode="json").keys()
