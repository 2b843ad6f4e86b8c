"""The desired state of serving, as read from Kafka.

Routes come from ``serving.desired``. A project without desired state is served by the base model of its spec.
Registered versions are kept too, so that a client can ask for one by its id.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, ServingDesired
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.serving import Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import INDEX_VERSIONED, PROJECT_DECLARED, TopicSpec

from tunewheel_serve_gateway.routing import DesiredProject


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version. A route may name it, but need not."""

    adapter: AdapterRef
    desired: DesiredProject
    bundle: Bundle | None
    """The bundle in the version's newest verdict; None: the version was not judged."""

    @property
    def project(self) -> str:
        return self.desired.project


class Catalog:
    """The newest spec and the newest desired state of each project. An older generation never replaces a
    newer one. Of two equal generations with other models the later one counts, whichever arrives first: a
    registry that was no longer active published the other."""

    def __init__(self) -> None:
        self._registered: dict[str, Envelope[ModelRegistered]] = {}
        self._promoted: dict[str, Envelope[ModelPromoted]] = {}
        self._judged: dict[str, Bundle] = {}
        self._desired: dict[str, Envelope[ServingDesired]] = {}
        self._declared: dict[str, Envelope[ProjectDeclared]] = {}
        self._previous: dict[str, Route] = {}
        self.refusals: dict[str, str] = {}
        """By project, why a desired state of the present generation was refused."""
        self.indexes: dict[str, Envelope[IndexVersioned]] = {}
        """The newest index of each project."""

    @property
    def events(self) -> list[Envelope[Any]]:
        """Return the events from which an equal catalog can be made by ``take``."""
        kept = (self._declared, self._desired, self._registered, self._promoted, self.indexes)
        return [event for some in kept for event in some.values()]

    def take(self, event: Envelope[Any]) -> None:
        """Take over an event of any of the topics."""
        match event.data:
            case ServingDesired():
                self._take_desired(event)
            case ProjectDeclared():
                self._declared[event.project] = event
            case IndexVersioned():
                self.indexes[event.project] = event
            case ModelPromoted(bundle=bundle) if bundle is not None:
                self._promoted[event.data.model_id] = event
                self._judged[event.data.model_id] = bundle
            case ModelRegistered(adapter=adapter) if adapter is not None:
                self._registered.setdefault(event.data.model_id, event)
            case _:
                pass

    def remove(self, topic: TopicSpec, project: str) -> None:
        """Forget what ``topic`` said about ``project``. A declared project without a desired state is served
        by its base model."""
        if topic is PROJECT_DECLARED:
            self._declared.pop(project, None)
        elif topic is INDEX_VERSIONED:
            self.indexes.pop(project, None)
        else:
            for kept in (self._desired, self._previous, self.refusals):
                kept.pop(project, None)

    def replace_by(self, other: Catalog) -> None:
        """Take over everything from ``other``, and forget what only this catalog has."""
        vars(self).update(vars(other))

    def _take_desired(self, event: Envelope[ServingDesired]) -> None:
        known = self._desired.get(event.project)
        if known is not None and _contradict(known, event):
            refused, kept = sorted((known, event), key=lambda one: (one.time, one.id))
            self.refusals[event.project] = (
                f"two registries decided on generation {event.data.generation} of {event.project}: the "
                f"routes of event {kept.id} serve, those of {refused.id} are refused; compare `tunewheel "
                "status` with the registry, and decide again by `tunewheel model promote` or `rollback`"
            )
            self._desired[event.project] = kept
        elif known is None or event.data.generation >= known.data.generation:
            if known is None or event.data.generation > known.data.generation:
                self.refusals.pop(event.project, None)
            self._desired[event.project] = event
            before = _in_production(known) if known is not None else None
            after = _in_production(event)
            if before is not None and (after is None or before.model_id != after.model_id):
                self._previous[event.project] = before

    @property
    def judged(self) -> Mapping[str, Bundle]:
        """Return the bundle of the newest verdict on each model, by model id."""
        return self._judged

    @property
    def adapters(self) -> dict[str, AdapterRef]:
        """Return the adapter of each registered version, by model id."""
        models = (event.data for event in self._registered.values())
        return {model.model_id: model.adapter for model in models if model.adapter is not None}

    def version(self, model_id: str) -> Version | None:
        """Return the registered version with this id; None where it or its project is unknown."""
        event = self._registered.get(model_id)
        known = event.data if event is not None else None
        if known is None or known.adapter is None:
            return None
        if known.project not in self._desired and known.project not in self._declared:
            return None
        return Version(known.adapter, self._project(known.project), self._judged.get(model_id))

    def spec(self, project: str) -> ProjectSpec | None:
        """Return the project's newest spec; None where none was declared. May be called from any thread."""
        declared = self._declared.get(project)
        return declared.data.spec if declared is not None else None

    @property
    def predecessors(self) -> set[str]:
        """Return the models that were in production before the present ones, which a rollback would serve.
        The list may lack some, because the topic is compacted."""
        return {route.model_id for route in self._previous.values()}

    @property
    def base_names(self) -> set[str]:
        return {project.base_name for project in self.projects()}

    def projects(self) -> list[DesiredProject]:
        """Return every project, by name."""
        return [self._project(name) for name in sorted({*self._desired, *self._declared})]

    def _project(self, name: str) -> DesiredProject:
        declared, desired = self._declared.get(name), self._desired.get(name)
        newest = desired or declared
        assert newest is not None
        spec = declared.data.spec if declared else None
        usual = DesiredProject(
            name,
            base_name=spec.base_model if spec else "",
            system_prompt=spec.task.system_prompt if spec else "",
            max_output_tokens=spec.task.max_output_tokens if spec else None,
            chat_template_kwargs=spec.task.chat_template_kwargs if spec else {},
            retrieves=spec is not None and spec.retrieval is not None and spec.retrieval.default == "on",
            constraint=spec.task.output_schema if spec and spec.task.constrained else None,
            created=int(newest.time.timestamp()),
        )
        if desired is None:
            return usual
        return replace(
            usual,
            base_name=desired.data.base.name,
            system_prompt=usual.system_prompt if spec else desired.data.system_prompt,
            routes=desired.data.desired.routes,
            stand_ins=desired.data.stand_ins,
            before=self._previous.get(name),
        )


def _in_production(event: Envelope[ServingDesired]) -> Route | None:
    """Return the production route; None where the project is served by its base model."""
    return next((r for r in event.data.desired.routes if r.role is RouteRole.PRODUCTION), None)


def _contradict(one: Envelope[ServingDesired], other: Envelope[ServingDesired]) -> bool:
    """Tell whether two events of one generation come from two decisions. A newly declared spec changes shares
    and prompts without a new generation, but never which models have a role."""
    if one.data.generation != other.data.generation or one.causation_id == other.causation_id:
        return False
    return {(r.role, r.model_id) for r in one.data.desired.routes} != {
        (r.role, r.model_id) for r in other.data.desired.routes
    }
