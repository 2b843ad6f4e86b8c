"""The list of all artifact formats. Schemas, examples and tests are generated from it."""

from __future__ import annotations

from pydantic import BaseModel

from tunewheel_contracts.formats.dataset import ChatExample, DatasetManifest, Negative, PreferencePair
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_contracts.formats.label_prompts import LabelPrompts
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.run import AdapterRef, RunManifest
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_contracts.formats.serving import DesiredRoutes
from tunewheel_contracts.formats.spec import ProjectSpec

FORMATS: dict[str, type[BaseModel]] = {
    "adapter-ref": AdapterRef,
    "chat-example": ChatExample,
    "dataset-manifest": DatasetManifest,
    "desired-routes": DesiredRoutes,
    "index-manifest": IndexManifest,
    "label-prompts": LabelPrompts,
    "negative": Negative,
    "preference-pair": PreferencePair,
    "project-spec": ProjectSpec,
    "review-set": ReviewSet,
    "run-manifest": RunManifest,
    "scorecard": Scorecard,
}
