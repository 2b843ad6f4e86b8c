"""Names by a spaCy pipeline: a real one, installed as those with models are, that knows its names by rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.data_quality import NamedEntities, PiiPolicy
from tunewheel_curate.cleaning.redaction import redact_records
from tunewheel_curate.pipeline import build
from tunewheel_curate.versions.card import data_card
from tunewheel_redaction import named_entities

NAME, VERSION = "en_larkspur_names", "1.2.0"
KNOWN = {"PERSON": "Anna Berg", "GPE": "Tollerby", "FAC": "Mill Lane 7", "ORG": "Larkspur", "NORP": "Frisian"}
POLICY = NamedEntities(pipeline=NAME, version=VERSION)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as ``site-packages`` is, with the pipeline and what an installer writes beside it."""
    import spacy

    site = tmp_path_factory.mktemp("site")
    pipeline = spacy.blank("en")
    pipeline.meta.update(name=NAME.removeprefix("en_"), version=VERSION)
    ruler: Any = pipeline.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": label, "pattern": text} for label, text in KNOWN.items()])
    (site / NAME).mkdir()
    pipeline.to_disk(site / NAME / f"{NAME}-{VERSION}")
    (site / NAME / "meta.json").write_text(json.dumps(pipeline.meta))
    (site / NAME / "__init__.py").write_text(
        "from spacy.util import load_model_from_init_py\n"
        "def load(**overrides):\n    return load_model_from_init_py(__file__, **overrides)\n"
    )
    (site / f"{NAME}-{VERSION}.dist-info").mkdir()
    (site / f"{NAME}-{VERSION}.dist-info" / "METADATA").write_text(f"Name: {NAME}\nVersion: {VERSION}\n")
    return site


@pytest.fixture(autouse=True)
def path(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    named_entities._pipeline.cache_clear()
    monkeypatch.syspath_prepend(installed)
    yield
    named_entities._pipeline.cache_clear()


def test_the_named_ones_go_and_others_stay(records: Callable[..., pl.DataFrame]) -> None:
    frame = records(
        {
            "title": "Anna Berg",
            "input": "I am Anna Berg from Mill Lane 7, Tollerby; a@example.com knows Larkspur.",
            "output": '{"reply": "Dear Anna Berg, the Frisian one is yours."}',
        }
    )
    stage = redact_records(frame, PiiPolicy(named_entities=POLICY))
    row = stage.kept.row(0, named=True)
    assert row["title"] == "<PERSON>"
    assert row["input"] == "I am <PERSON> from <LOCATION>, <LOCATION>; <EMAIL_ADDRESS> knows Larkspur."
    assert row["output"] == '{"reply": "Dear <PERSON>, the Frisian one is yours."}'
    assert stage.counts == {"EMAIL_ADDRESS": 1, "LOCATION": 2, "PERSON": 3}
    others = POLICY.model_copy(update={"entities": ("ORGANIZATION", "NRP")})
    row = redact_records(frame, PiiPolicy(named_entities=others, names=False, addresses=False)).kept.row(
        0, named=True
    )
    assert row["input"].endswith(
        "Anna Berg from Mill Lane 7, Tollerby; <EMAIL_ADDRESS> knows <ORGANIZATION>."
    )
    assert row["output"] == '{"reply": "Dear Anna Berg, the <NRP> one is yours."}'


def test_a_name_has_one_stand_in_within_a_conversation(records: Callable[..., pl.DataFrame]) -> None:
    frame = records({"title": "Anna Berg", "input": "Anna Berg again", "group": "a"})
    kept = redact_records(frame, PiiPolicy(action="pseudonymise", named_entities=POLICY)).kept
    stand_in = kept["title"][0]
    assert stand_in.startswith("<PERSON_")
    assert kept["input"][0] == f"{stand_in} again"


@pytest.mark.parametrize(
    ("changes", "field", "told"),
    [
        ({"pipeline": "en_core_web_lg"}, "pipeline", "'en_core_web_lg' is not installed where curate runs; "
         "install version 1.2.0 there, or leave named_entities out"),
        ({"version": "1.3.0"}, "version", "is 1.3.0, and en_larkspur_names 1.2.0 is installed"),
        ({"pipeline": "en_no_pipeline"}, "pipeline", "'en_no_pipeline' cannot be loaded ("),
    ],
)  # fmt: skip
def test_what_is_not_there_refuses_the_version_and_says_what_to_install(
    records, varied_rows, spec, installed: Path, changes: dict[str, str], field: str, told: str
) -> None:
    (installed / "en_no_pipeline").mkdir(exist_ok=True)
    (installed / "en_no_pipeline" / "__init__.py").write_text("")
    (installed / "en_no_pipeline-1.dist-info").mkdir(exist_ok=True)
    (installed / "en_no_pipeline-1.dist-info" / "METADATA").write_text("Name: en_no_pipeline\nVersion: 1\n")
    policy = POLICY.model_copy(update=changes).model_dump(mode="json")
    (reason,) = build(records(*varied_rows(3)), spec(pii={"named_entities": policy})).rejections
    assert reason.startswith(f"dataset.pii.named_entities.{field}: ")
    assert told in reason


def test_a_version_with_names_redacted_passes_its_own_suite(records, varied_rows, spec) -> None:
    rows = [row | {"input": f"{row['input']} Anna Berg of Tollerby"} for row in varied_rows(40)]
    wanted = spec(pii={"named_entities": POLICY.model_dump(mode="json")})
    made = build(records(*rows), wanted)
    assert not made.rejections
    asked = [turns[-2]["content"] for turns in made.split.train["messages"].to_list()]
    assert asked
    assert all("<PERSON> of <LOCATION>" in text for text in asked)
    card = data_card("ds-1", wanted, made)
    assert "names also by the pipeline" in card
    assert "lists of given names" not in card


def test_a_path_is_no_name_of_a_pipeline() -> None:
    for name in ("/models/en", "../en", "en-core", "os", "en_x/../y"):
        with pytest.raises(ValueError, match="pattern"):
            NamedEntities(pipeline=name, version="1")


def test_a_pattern_may_not_bear_the_name_of_what_the_pipeline_finds() -> None:
    with pytest.raises(ValueError, match="'PERSON' twice"):
        PiiPolicy.model_validate(
            {"patterns": [{"name": "PERSON", "regex": "x"}], "named_entities": POLICY.model_dump()}
        )
