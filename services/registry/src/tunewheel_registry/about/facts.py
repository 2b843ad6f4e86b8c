"""Reads the artifacts behind one model: dataset manifest, run manifest, newest scorecard."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import BaseModel
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_registry.lineage.events import Kind
from tunewheel_registry.lineage.index import Graph, Node
from tunewheel_registry.state import Model, State

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class ModelFacts:
    """The artifacts behind one model. None: the artifact does not exist, or ``missing`` says why it cannot be
    read."""

    model: Model
    license: str | None
    """License of the base model."""
    dataset: DatasetManifest | None
    run: RunManifest | None
    scorecard: Scorecard | None
    evaluation: Node | None
    """The model's newest evaluation."""
    reviews: tuple[Node, ...]
    missing: dict[str, str] = field(default_factory=dict[str, str])


async def facts_of(state: State, graph: Graph, store: ObjectStore, model: Model) -> ModelFacts:
    """Read the artifacts behind ``model``. A missing or corrupt file is listed in ``missing``. Raises
    TransientError: the store is unavailable."""
    missing: dict[str, str] = {}

    async def read(name: str, document: type[M], node: Node | None, artifact: str) -> M | None:
        ref = node.artifacts.get(artifact) if node else None
        if ref is None:
            return None
        try:
            return decode_data(document, await store.get(ref))
        except (ArtifactMissing, CorruptArtifact, InvalidEvent) as error:
            missing[name] = str(error)
            return None

    known = model.registration
    dataset = graph.find(known.dataset_id or "")
    run = graph.find(known.run_id or "")
    node, children = graph.find(model.model_id), graph.children()
    judged = [n for n in children.get(node.key, []) if n.kind is Kind.EVALUATION] if node else []
    evaluation = max(judged, key=lambda n: n.at, default=None)
    reviews = [n for j in judged for n in children.get(j.key, []) if n.kind is Kind.REVIEW]
    return ModelFacts(
        model=model,
        license=_license(state, model),
        dataset=await read("dataset", DatasetManifest, dataset, "manifest"),
        run=await read("run", RunManifest, run, "manifest"),
        scorecard=await read("scorecard", Scorecard, evaluation, "scorecard"),
        evaluation=evaluation,
        reviews=tuple(sorted(reviews, key=lambda n: n.at)),
        missing=missing,
    )


def _license(state: State, model: Model) -> str | None:
    adapter = model.registration.adapter
    told = [model.registration.base_facts, adapter.base_facts if adapter else None]
    told += [
        m.registration.base_facts
        for m in state.models.values()
        if m.registration.base == model.registration.base
    ]
    return next((facts.license for facts in told if facts is not None and facts.license), None)
