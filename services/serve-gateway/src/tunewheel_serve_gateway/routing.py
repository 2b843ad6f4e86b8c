"""The route table: which model answers a request, given the desired state and the loaded models."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import MappingProxyType
from typing import Any

from tunewheel_contracts.events.production import FALLBACK
from tunewheel_contracts.fields import JsonObject
from tunewheel_contracts.formats.bundle import Bundle, ChatTemplateKwargs
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.serving import ALIASES, Route, RouteRole

from tunewheel_serve_gateway.errors import Unavailable, UnknownModel


@dataclass(frozen=True, slots=True)
class DesiredProject:
    """The desired state of one project, from ``serving.desired``, or from its spec alone."""

    project: str
    base_name: str
    system_prompt: str
    max_output_tokens: int | None = None
    chat_template_kwargs: ChatTemplateKwargs = field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    stand_ins: tuple[Route, ...] = ()
    """The models that may answer while the production model cannot be loaded, best first."""
    before: Route | None = None
    """The previous production route, if the compacted topic still has it. Used where ``stand_ins`` is
    empty."""
    retrieves: bool = False
    """Whether requests get passages from the project's index unless they say otherwise."""
    constraint: JsonObject | None = None
    """The JSON Schema by which the answers of the bare base are constrained."""
    created: int = 0
    """Time of the event, in Unix seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model that can answer. ``upstream_model`` is its name at the engine."""

    project: str
    model_id: str
    upstream_model: str
    system_prompt: str
    max_output_tokens: int | None = None
    """Limit of output tokens where the client sets none."""
    chat_template_kwargs: ChatTemplateKwargs = field(default_factory=dict)
    bundle: Bundle | None = None
    """The prompt, limits and decoding settings with which the model was judged; it is served with the same.
    None: the model has no verdict."""
    role: RouteRole = RouteRole.PRODUCTION
    percent: int = 100
    adapter: AdapterRef | None = None
    pinned: bool = False
    is_fallback: bool = False
    """Whether it is the endpoint of ``serving.abstain``, and no model of the project."""
    retrieves: bool = False
    """Whether the project's passages are put into the prompt unless a request says otherwise."""
    response_format: dict[str, Any] | None = None
    """The form to which answers are constrained where the client names none, as a parameter of OpenAI's
    API."""

    @property
    def arm(self) -> str:
        """The role as clients and metrics are told."""
        return FALLBACK if self.is_fallback else self.role.value

    @property
    def schema(self) -> JsonObject | None:
        """The JSON Schema of ``response_format``."""
        return self.response_format["json_schema"]["schema"] if self.response_format else None


@dataclass(frozen=True, slots=True)
class ProjectTable:
    project: str
    base: Target
    created: int = 0
    production: Target | None = None
    canary: Target | None = None
    shadow: Target | None = None
    waiting_for: str | None = None
    """The model that should answer but is not loaded."""
    refusal: str | None = None
    """Why no engine can ever load ``waiting_for``; None: a later attempt may succeed."""
    stand_ins: tuple[Target, ...] = ()
    """The models that may answer meanwhile. The first one that is loaded does."""
    refused: tuple[Target, ...] = ()
    """Candidates that no engine can serve; their share of the requests is logged as failed."""

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(t for t in (self.production, self.canary, self.shadow) if t is not None)

    @property
    def adapters(self) -> dict[str, AdapterRef]:
        targets = (*self.targets, *self.stand_ins)
        return {target.model_id: target.adapter for target in targets if target.adapter is not None}

    def named(self, model: str) -> Target | None:
        """Return the base or the loaded target that is called ``model``; None: there is none."""
        named = (target for target in self.targets if target.model_id == model)
        return self.base if model == self.base.upstream_model else next(named, None)

    def pick(self, draw: float) -> Target | None:
        """Return the canary for a ``draw`` (0 ≤ draw < 1) within its share, else production."""
        if self.canary is not None and draw * 100 < self.canary.percent:
            return self.canary
        return self.production


@dataclass(frozen=True, slots=True)
class RouteTable:
    projects: Mapping[str, ProjectTable] = field(default_factory=dict[str, ProjectTable])

    @property
    def adapters(self) -> dict[str, AdapterRef]:
        """The adapters of all targets and stand-ins, by model id."""
        return {name: ref for table in self.projects.values() for name, ref in table.adapters.items()}

    def candidate(self, model: str) -> str:
        """Return the id of the canary of project ``model``; "" where there is none."""
        table = self.projects.get(model)
        return table.canary.model_id if table is not None and table.canary is not None else ""

    def waiting_for(self, model: str) -> str | None:
        """Return the model that should answer for project ``model`` but is not loaded."""
        table = self.projects.get(model)
        return None if table is None else table.waiting_for

    def owners(self, model: str) -> list[str]:
        """Return the projects that may answer for ``model``, any name that ``find`` accepts."""
        project, _, rest = model.rpartition("/")
        if model in self.projects:
            return [model]
        if project in self.projects and (rest == "base" or rest in ALIASES):
            return [project]
        return [name for name, table in self.projects.items() if table.named(model) is not None]

    def find(self, model: str, *, draw: float, allowed: Collection[str] | None = None) -> Target:
        """Return the target that answers for ``model``: a project, ``<project>/base``, ``<project>/champion``
        or ``<project>/challenger``, a model id or a base's name.

        ``allowed``: the projects that the caller may use; None: all. Models of other projects are treated as
        unknown, so that an error does not reveal them.

        Raises:
            UnknownModel
            Unavailable: the project's model is not loaded yet.
        """
        table = self.projects.get(model)
        if table is None:
            return self._pinned(model, allowed)
        if allowed is not None and model not in allowed:
            raise self._unknown(model, allowed)
        return self._routed(table, draw)

    def _pinned(self, model: str, allowed: Collection[str] | None) -> Target:
        project, _, rest = model.rpartition("/")
        owner = self.projects.get(project)
        if owner is not None and rest == "base":
            found = [owner.base]
        elif owner is not None and rest in ALIASES:
            fit = (t for t in owner.targets if t.role in ALIASES[rest] and t.adapter is not None)
            found = list(fit)[:1]
        else:
            found = [t for table in self.projects.values() if (t := table.named(model)) is not None]
        mine = found if allowed is None else [target for target in found if target.project in allowed]
        if not mine:
            raise self._unknown(model, allowed)
        if not _mean_the_same(mine):
            names = ", ".join(f"{target.project}/base" for target in mine)
            raise UnknownModel(
                f"several projects use {model}, each in its own way; name one of {names}", param="model"
            )
        return replace(mine[0], pinned=True)

    def _unknown(self, model: str, allowed: Collection[str] | None) -> UnknownModel:
        known = ", ".join(sorted(name for name in self.projects if allowed is None or name in allowed))
        unless = "" if allowed is None else ", or not for this caller"
        reason = f"model {model!r} is not served{unless}; projects here: {known or 'none'}"
        return UnknownModel(reason, param="model")

    def _routed(self, table: ProjectTable, draw: float) -> Target:
        target = table.pick(draw)
        if target is None and table.refusal is not None:
            raise Unavailable(
                f"model {table.waiting_for} cannot be served, and no model stands in: {table.refusal}",
                param="model",
                retry_after="60",
            )
        if target is None:
            raise Unavailable(
                f"model {table.waiting_for} is being loaded; try again shortly",
                param="model",
                retry_after="2",
            )
        return target


def _mean_the_same(targets: Sequence[Target]) -> bool:
    """Tell whether a request gets the same answer whichever of ``targets`` it is given to. Passages come from
    the project's own index."""
    alike = [replace(target, project="", percent=0) for target in targets]
    return len(alike) == 1 or all(one == alike[0] and not one.retrieves for one in alike)


def build_table(
    desired: Iterable[DesiredProject],
    ready: Collection[str],
    previous: RouteTable,
    *,
    tried: Collection[str] = (),
    failed: Collection[str] = (),
    refused: Mapping[str, str] = MappingProxyType({}),
) -> RouteTable:
    """Return the table for the ``desired`` projects, with only the adapters in ``ready``.

    ``tried``: adapters that every engine has tried to load, without success. ``failed``: those of them that
    failed several times. ``refused``: those of ``failed`` that no engine can ever load, with the reason.

    A canary or shadow whose adapter is not loaded gets no traffic. Where the production adapter is not
    loaded, a stand-in answers; see ``_stand_ins``.
    """
    tables = (
        _project_table(project, ready, tried, failed, refused, previous.projects.get(project.project))
        for project in desired
    )
    return RouteTable({table.project: table for table in tables})


def _project_table(
    desired: DesiredProject,
    ready: Collection[str],
    tried: Collection[str],
    failed: Collection[str],
    refused: Mapping[str, str],
    previous: ProjectTable | None,
) -> ProjectTable:
    base = Target(
        desired.project,
        desired.base_name,
        desired.base_name,
        desired.system_prompt,
        desired.max_output_tokens,
        desired.chat_template_kwargs,
        retrieves=desired.retrieves,
        response_format=_response_format(desired.constraint),
    )
    wanted = {route.role: _target(desired, route) for route in desired.routes}
    found = {role: target for role, target in wanted.items() if _is_loaded(target, ready)}
    production = wanted.get(RouteRole.PRODUCTION, base)
    table = ProjectTable(
        project=desired.project,
        base=base,
        created=desired.created,
        production=production,
        canary=found.get(RouteRole.CANARY),
        shadow=found.get(RouteRole.SHADOW),
        refused=tuple(
            target
            for role, target in wanted.items()
            if role not in found and role is not RouteRole.PRODUCTION and target.model_id in refused
        ),
    )
    if _is_loaded(production, ready):
        return table
    before = _answered_before(production, previous)
    named = desired.stand_ins
    if before is None and not named and desired.before is not None:
        named = (desired.before,)
    stand_ins = _stand_ins(
        before,
        tuple(_target(desired, route) for route in named),
        ready,
        may_be_base=previous is None or production.model_id in tried,
        was_tried=production.model_id in tried,
        has_failed=production.model_id in failed,
    )
    answers = next((target for target in stand_ins if _is_loaded(target, ready)), None)
    return replace(
        table,
        production=answers,
        waiting_for=production.model_id,
        refusal=refused.get(production.model_id),
        stand_ins=stand_ins,
    )


def _stand_ins(
    before: Target | None,
    named: tuple[Target, ...],
    ready: Collection[str],
    *,
    may_be_base: bool,
    was_tried: bool,
    has_failed: bool,
) -> tuple[Target, ...]:
    """Return the models that may answer until production is loaded, best first.

    1. The model that answered ``before`` goes on answering, until production ``has_failed``. After that only
       the ``named`` stand-ins may answer, because the earlier model may have been rolled back.
    2. Otherwise the first named stand-in that is loaded answers. The base model counts as loaded if it is
       named and ``may_be_base``. A gateway that has just started is in this case.
    3. If no named stand-in is loaded, all of them are returned, to be loaded, once production ``was_tried``.
    """
    if before is not None and not (named and has_failed):
        return (before,)
    loaded = [t for t in named if t.model_id in ready or (t.adapter is None and may_be_base)]
    return tuple(loaded[:1]) or (named if was_tried else ())


def _answered_before(production: Target, previous: ProjectTable | None) -> Target | None:
    if previous is None:
        return None
    before = previous.production
    if before is None or before.model_id == production.model_id:
        before = next(iter(previous.stand_ins), None)
    if before is None or before.bundle is not None:
        return before
    return replace(
        before,
        system_prompt=production.system_prompt,
        chat_template_kwargs=production.chat_template_kwargs,
    )


def _is_loaded(target: Target, ready: Collection[str]) -> bool:
    return target.adapter is None or target.model_id in ready


def _target(desired: DesiredProject, route: Route) -> Target:
    """Return the target of a route. A judged model is served with the prompt, the limit and the constraint of
    its verdict, even if the project's spec has changed since. An adapter without a bundle was judged by an
    earlier release, without a constraint."""
    bundle = route.bundle
    declared = desired.constraint if route.adapter is None else None
    return Target(
        project=desired.project,
        model_id=route.model_id,
        upstream_model=route.model_id if route.adapter else desired.base_name,
        system_prompt=bundle.system_prompt if bundle else desired.system_prompt,
        max_output_tokens=bundle.max_output_tokens if bundle else desired.max_output_tokens,
        chat_template_kwargs=(bundle or desired).chat_template_kwargs,
        bundle=bundle,
        role=route.role,
        percent=route.percent,
        adapter=route.adapter,
        retrieves=desired.retrieves,
        response_format=_response_format(bundle.constraint if bundle else declared),
    )


def _response_format(schema: JsonObject | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    return {
        "type": "json_schema",
        "json_schema": {"name": "output_schema", "schema": schema, "strict": True},
    }


def pinned_version(desired: DesiredProject, adapter: AdapterRef, bundle: Bundle | None) -> Target:
    """Return the target of a version without a route. Its completions are logged as pinned, with the role
    production."""
    route = Route(
        model_id=adapter.model_id, role=RouteRole.PRODUCTION, percent=100, adapter=adapter, bundle=bundle
    )
    return replace(_target(desired, route), pinned=True)


def sticky_draw(project: str, key: str, candidate: str = "") -> float:
    """Return a number from 0 to 1 that depends only on project, user and candidate. A user therefore keeps
    the same model during a canary, and each candidate starts with other users."""
    salted = f"{project}\n{candidate}\n{key}" if candidate else f"{project}\n{key}"
    digest = blake2b(salted.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
