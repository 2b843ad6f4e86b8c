"""``PUT`` and ``DELETE /v1/projects/{project}``: put a spec in force, check one, and take one back; and how
probable a verdict by a spec's criteria is."""

from __future__ import annotations

import asyncio
import codecs
import sys
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

import structlog
from fastapi import FastAPI, Query, Request, Response
from tunewheel_contracts.api.commands import Accepted
from tunewheel_contracts.api.datasets import Power
from tunewheel_contracts.api.projects import Declaration
from tunewheel_contracts.changes import changes
from tunewheel_contracts.errors import InvalidSpec, TunewheelError
from tunewheel_contracts.fields import Slug
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_outputs.specs import MAX_SPEC_BYTES, check_spec, untold_change, vacuous_form
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.refusals import Refused

from tunewheel_console.actions import Actions
from tunewheel_console.control.log import Log
from tunewheel_console.control.resolving import View
from tunewheel_console.state import ConsoleState

SPEC_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/yaml": {
                "schema": {"type": "string", "description": "The spec, as in project.yaml."}
            },
            "application/json": {"schema": {"type": "object", "description": "The spec."}},
        },
    }
}


def add_declarations(
    api: FastAPI, state: ConsoleState, actions: Actions, log: Log, allowed: AllowedSources | None
) -> None:
    """Add the routes. ``allowed``: the hosts and folders that specs may name; None: curate alone checks
    them."""

    @api.put("/v1/projects/{project}", status_code=HTTPStatus.ACCEPTED, openapi_extra=SPEC_BODY)
    @needs(Role.OPERATOR)
    async def declare_project(
        request: Request,
        response: Response,
        project: Slug,
        check: Annotated[bool, Query(description="Only check the spec.")] = False,
        power: Annotated[bool, Query(description="Simulate how probable a verdict is.")] = True,
        replaces: Annotated[
            str | None, Query(description="Refuse the spec unless this one, by its SHA-256, is in force.")
        ] = None,
    ) -> Declaration:
        """Check a project's spec, whose faults are all told at once, and put it in force. With ``check``
        nothing is put in force, and the status is 200. 409: the spec in force is not that of ``replaces``."""
        from tunewheel_verdicts.power import cautions_of

        # A long spec takes seconds, and others are waiting.
        spec = await asyncio.to_thread(check_spec, await _text(request), allowed=allowed)
        if spec.project != project:
            raise InvalidSpec(field="project", reason=f"is {spec.project!r}, and the path says {project!r}")
        view = state.projects.get(project)
        before = view.spec if view else None
        in_force = before.sha256 if before else "none"
        if replaces not in (None, in_force):
            reason = "another spec has been put in force meanwhile; look at what yours changes now"
            raise Refused(HTTPStatus.CONFLICT, "replaces", reason)
        command_id = ""
        if check:
            response.status_code = HTTPStatus.OK
        else:
            event = await actions.declare(spec, principal=caller_of(request).principal)
            command_id = event.id
        found = await find_power(spec) if power else None
        why = f"it took more than {SIMULATION_SECONDS:g} s, or its process ended"
        return Declaration(
            project=project,
            command_id=command_id,
            spec_sha256=spec.sha256,
            replaces=in_force,
            criteria_sha256=spec.criteria_sha256,
            base_model=spec.base_model,
            criteria=len(spec.criteria),
            changes=changes(before.model_dump(mode="json") if before else {}, spec.model_dump(mode="json")),
            cautions=(*spec.cautions, *(cautions_of(found) if found else ())),
            notes=tuple(note for note in (untold_change(before, spec), vacuous_form(spec)) if note),
            power=found,
            power_left_out=None if found else why if power else "it was not asked for",
        )

    @api.delete("/v1/projects/{project}", status_code=HTTPStatus.ACCEPTED)
    @needs(Role.OPERATOR)
    async def remove_project(request: Request, view: View) -> Accepted:
        """Take back a project's declaration: nothing of it is built, trained, watched or served any more.
        What was published, built and trained stays, and declaring the project again brings it back. Taking it
        back again changes nothing."""
        await actions.remove(view.name, principal=caller_of(request).principal)
        await log.refresh()
        return Accepted(project=view.name)


async def _text(request: Request) -> str:
    """Return the body as text. Raises ``Refused`` where it is too long or no text."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_SPEC_BYTES:
            reason = f"is over {MAX_SPEC_BYTES} bytes; is it the spec?"
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "(body)", reason)
    try:
        return bytes(body).removeprefix(codecs.BOM_UTF8).decode()
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 (byte {error.start}); send it so"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "(body)", reason) from error


log = structlog.get_logger(__name__)
SIMULATION_SECONDS = 20.0
"""The longest simulation. A heavy one takes minutes: many criteria, and no number of rows suffices."""
MOST_KEPT = 256
_kept: dict[str, Power] = {}
_one_at_a_time = asyncio.Semaphore(1)


class SimulationEnded(TunewheelError):
    """The process that simulates ended before it answered."""


async def find_power(
    spec: ProjectSpec,
    sizes: Sequence[int] | None = None,
    *,
    card: Scorecard | None = None,
) -> Power | None:
    """Simulate verdicts by the spec's criteria, in another process. None: it took too long, or the
    process was ended, for example for its memory.

    Args:
        sizes: the number of held-out rows of each customer; None: those of ``card``, or else of the smallest
            version that the spec allows.
        card: a scorecard of the project, for the figures of base and champion; None: they are assumed.
    """
    from tunewheel_verdicts.__main__ import ASKED, Asked
    from tunewheel_verdicts.power import expected_by, sizes_for

    sizes = sizes_for(spec, card) if sizes is None else tuple(sizes)
    asked = ASKED.dump_json(Asked(spec, sizes, expected_by(card) if card is not None else {}))
    name = content_sha256(asked)
    if name not in _kept:
        try:
            async with asyncio.timeout(SIMULATION_SECONDS), _one_at_a_time:
                found = await _simulated(asked)
        except (TimeoutError, SimulationEnded) as error:
            log.warning("power_left_out", project=spec.project, reason=str(error) or "too slow")
            return None
        if len(_kept) >= MOST_KEPT:
            del _kept[next(iter(_kept))]
        _kept[name] = found
    return _kept[name]


async def _simulated(asked: bytes) -> Power:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunewheel_verdicts", stdin=pipe, stdout=pipe
    )
    try:
        told, _ = await process.communicate(asked)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise SimulationEnded(f"the simulation of verdicts ended with status {process.returncode}")
    return Power.model_validate_json(told)
