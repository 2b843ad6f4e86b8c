"""Which model answers: the desired state, narrowed to what the engine really has, as a table."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from types import MappingProxyType

from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.serving import ALIASES, Route, RouteRole

from tunewheel_serve_gateway.errors import Unavailable, UnknownModel


@dataclass(frozen=True, slots=True)
class DesiredProject:
    """What the log says of one project: from ``serving.desired``, else from its spec alone."""

    project: str
    base_name: str
    system_prompt: str
    max_output_tokens: int | None = None
    routes: tuple[Route, ...] = ()
    stand_ins: tuple[Route, ...] = ()
    """Who may answer for a production that cannot be loaded, the best first."""
    before: Route | None = None
    """In production before, as far as the log still tells; counts where no stand-ins are named."""
    created: int = 0
    """Unix seconds of the event behind it."""


@dataclass(frozen=True, slots=True)
class Target:
    """One model that can answer now. ``upstream_model`` is its name at the engine."""

    project: str
    model_id: str
    upstream_model: str
    system_prompt: str
    max_output_tokens: int | None = None
    """Asked for where the client sets no limit of its own."""
    bundle: Bundle | None = None
    """What eval judged of the model, and the gateway therefore serves; None: no verdict says."""
    role: RouteRole = RouteRole.PRODUCTION
    percent: int = 100
    adapter: AdapterRef | None = None
    pinned: bool = False


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
    """Why the engine will not load it, however often it is asked; None: it may."""
    stand_ins: tuple[Target, ...] = ()
    """Who may answer meanwhile: the first that is itself loaded does."""
    refused: tuple[Target, ...] = ()
    """Candidates that the engine will not serve, whose requests count as failed."""

    @property
    def targets(self) -> tuple[Target, ...]:
        return tuple(t for t in (self.production, self.canary, self.shadow) if t is not None)

    @property
    def adapters(self) -> dict[str, AdapterRef]:
        targets = (*self.targets, *self.stand_ins)
        return {target.model_id: target.adapter for target in targets if target.adapter is not None}

    def named(self, model: str) -> Target | None:
        """Return the target that ``model`` names: the base, or one that can answer now."""
        named = (target for target in self.targets if target.model_id == model)
        return self.base if model == self.base.upstream_model else next(named, None)

    def pick(self, draw: float) -> Target | None:
        """Return canary or production by ``draw``, 0 ≤ draw < 1."""
        if self.canary is not None and draw * 100 < self.canary.percent:
            return self.canary
        return self.production


@dataclass(frozen=True, slots=True)
class RouteTable:
    projects: Mapping[str, ProjectTable] = field(default_factory=dict[str, ProjectTable])

    @property
    def adapters(self) -> dict[str, AdapterRef]:
        """Adapters that routes point to, or would if the engine had them."""
        return {name: ref for table in self.projects.values() for name, ref in table.adapters.items()}

    def candidate(self, model: str) -> str:
        """Return whom a draw for project ``model`` is about: the canary, "" where there is none."""
        table = self.projects.get(model)
        return table.canary.model_id if table is not None and table.canary is not None else ""

    def waiting_for(self, model: str) -> str | None:
        """Return the model that project ``model`` waits for."""
        table = self.projects.get(model)
        return None if table is None else table.waiting_for

    def owners(self, model: str) -> list[str]:
        """Return the projects one of which answers for ``model``, a name that ``find`` knows."""
        project, _, rest = model.rpartition("/")
        if model in self.projects:
            return [model]
        if project in self.projects and (rest == "base" or rest in ALIASES):
            return [project]
        return [name for name, table in self.projects.items() if table.named(model) is not None]

    def find(self, model: str, *, draw: float, allowed: Collection[str] | None = None) -> Target:
        """Return who answers for ``model``: a project, ``<project>/base``, ``<project>/champion`` or
        ``<project>/challenger``, a model id or a base's name.

        ``allowed``: the projects that the caller may use; None: all of them. What others have is unknown to
        the caller, so that no refusal tells what there is.

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
        if len(mine) > 1:
            names = ", ".join(f"{target.project}/base" for target in mine)
            raise UnknownModel(f"several projects use {model}; name one of {names}", param="model")
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
                f"model {table.waiting_for} cannot be served, and nobody stands in: {table.refusal}",
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


def build_table(
    desired: Iterable[DesiredProject],
    ready: Collection[str],
    previous: RouteTable,
    *,
    tried: Collection[str] = (),
    failed: Collection[str] = (),
    refused: Mapping[str, str] = MappingProxyType({}),
) -> RouteTable:
    """Narrow ``desired`` to the adapters in ``ready``. ``tried`` are those that no engine has loaded yet
    though each tried, ``failed`` those that failed several times, ``refused`` those of them that will not be
    loaded however often an engine is asked, with the reason.

    A canary or shadow whose adapter is not loaded gets no traffic. Where the production adapter is not
    loaded, a stand-in answers: see ``_stand_ins``.
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
    """Return who may answer until production is loaded, the best first.

    Whoever answered ``before`` goes on, until production ``has_failed``: from then on only those that the log
    has ``named`` may, for whoever answered before may have been rolled back. A gateway that has just started
    saw nobody before: one that is loaded answers at once, and so does the bare base where it is named
    (``may_be_base``). If none is loaded, all that are named are loaded once production ``was_tried`` in vain.
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
    return replace(before, system_prompt=production.system_prompt)


def _is_loaded(target: Target, ready: Collection[str]) -> bool:
    return target.adapter is None or target.model_id in ready


def _target(desired: DesiredProject, route: Route) -> Target:
    """What was judged of the route's model, prompt and limit with it, serves whatever is declared by now."""
    bundle = route.bundle
    return Target(
        project=desired.project,
        model_id=route.model_id,
        upstream_model=route.model_id if route.adapter else desired.base_name,
        system_prompt=bundle.system_prompt if bundle else desired.system_prompt,
        max_output_tokens=bundle.max_output_tokens if bundle else desired.max_output_tokens,
        bundle=bundle,
        role=route.role,
        percent=route.percent,
        adapter=route.adapter,
    )


def pinned_version(desired: DesiredProject, adapter: AdapterRef, bundle: Bundle | None) -> Target:
    """Return the target of a version that no route names. Its completions count as pinned ones of
    production."""
    route = Route(
        model_id=adapter.model_id, role=RouteRole.PRODUCTION, percent=100, adapter=adapter, bundle=bundle
    )
    return replace(_target(desired, route), pinned=True)


def sticky_draw(project: str, key: str, candidate: str = "") -> float:
    """Return a number in 0..1 that is the same for the same user of a project and the same ``candidate``: the
    next candidate meets other users first."""
    salted = f"{project}\n{candidate}\n{key}" if candidate else f"{project}\n{key}"
    digest = blake2b(salted.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
