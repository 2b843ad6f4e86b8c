"""Finds names of people and places, which patterns cannot find, by a spaCy pipeline installed with curate."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import NamedEntities

from tunewheel_redaction.finding import Finding

if TYPE_CHECKING:
    from spacy.language import Language

SCORE = 0.85
"""The score of a pipeline's findings, which have no probabilities; presidio uses the same."""
FIELD = "dataset.pii.named_entities"
_ENTITIES = {
    "PER": "PERSON", "PERSON": "PERSON", "GPE": "LOCATION", "LOC": "LOCATION", "FAC": "LOCATION",
    "ORG": "ORGANIZATION", "NORP": "NRP",
}  # fmt: skip
"""By label of spaCy's pipelines (OntoNotes 5, WikiNER), the name of the entity in presidio."""
_NOT_NEEDED = ("tagger", "morphologizer", "parser", "senter", "attribute_ruler", "lemmatizer", "textcat")


def find_named_entities(texts: pl.Series, policy: NamedEntities) -> dict[int, list[Finding]]:
    """Return the findings of the pipeline of ``policy``, by the text's position in ``texts``.

    Raises:
        InvalidSpec: the pipeline is not installed here, has another version, or cannot be loaded.
    """
    found: dict[int, list[Finding]] = {}
    for place, document in enumerate(_pipeline(policy.pipeline, policy.version).pipe(texts)):
        for span in document.ents:
            entity = _ENTITIES.get(span.label_)
            if entity in policy.entities:
                found.setdefault(place, []).append(Finding(entity, span.start_char, span.end_char, SCORE))
    return found


@cache
def _pipeline(name: str, version: str) -> Language:
    from spacy import util

    if not util.is_package(name):
        raise InvalidSpec(
            field=f"{FIELD}.pipeline",
            reason=f"{name!r} is not installed where curate runs; install version {version} there, "
            "or leave named_entities out",
        )
    try:
        pipeline = util.load_model_from_package(name, exclude=_NOT_NEEDED)
    except Exception as error:  # the package's own code may raise anything
        reason = f"{name!r} cannot be loaded ({error}); install one that fits the spaCy there"
        raise InvalidSpec(field=f"{FIELD}.pipeline", reason=reason) from error
    installed = str(pipeline.meta["version"])
    if installed != version:
        raise InvalidSpec(
            field=f"{FIELD}.version",
            reason=f"is {version}, and {name} {installed} is installed where curate runs: it may find other "
            "names; install the one, or declare the other",
        )
    return pipeline
