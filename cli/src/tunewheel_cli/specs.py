"""Declares a project. The YAML is checked here, before anything is published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED
from tunewheel_local.endpoint import NotAllowed
from tunewheel_local.places import Var
from tunewheel_local.run_state import living
from tunewheel_outputs.specs import MAX_SPEC_BYTES, check_spec

from tunewheel_cli.publishing.sender import Sender, publish
from tunewheel_cli.reading import declared_projects, read_latest, require_project


def read_spec(path: Path) -> ProjectSpec:
    """Read and check a spec.

    Raises:
        InvalidSpec: the file cannot be read or is no valid spec; ``field`` is the dotted path.
    """
    try:
        if path.stat().st_size > MAX_SPEC_BYTES:
            raise InvalidSpec(
                field="(file)", reason=f"{path} is over {MAX_SPEC_BYTES} bytes: is it the spec?"
            )
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidSpec(
            field="(file)", reason=f"{path} is not UTF-8 (byte {error.start}); save it so"
        ) from error
    except OSError as error:
        raise InvalidSpec(field="(file)", reason=f"{path} cannot be read: {error.strerror}") from error
    return check_spec(text)


def check_sources(spec: ProjectSpec, var: Var, bootstrap_servers: str) -> None:
    """Check the spec's sources against those that the curate of the wheel on ``var`` allows.

    The sources that the curate of another Kafka allows are not known here; it rejects the build if necessary.

    Raises:
        InvalidSpec: see ``AllowedSources.check``.
    """
    running = living(var.run_file)
    if running is not None and running.bootstrap_servers == bootstrap_servers:
        AllowedSources.configured(
            hosts=running.spec_hosts, folders=running.spec_folders, store_url=running.store_url
        ).check(spec)


async def declare(
    spec: ProjectSpec, options: Mapping[str, Any], principal: Principal | None
) -> Envelope[ProjectDeclared]:
    """Publish a spec. Declaring the same spec again gives the same event."""
    declared = ProjectDeclared(project=spec.project, spec=spec, principal=principal)
    return (await publish(options, declared))[0]


async def remove(project: str, options: Mapping[str, Any]) -> None:
    """Take back the declaration of ``project``, then its serving state. What was published, built and trained
    stays: declaring the project again brings all of it back.

    Raises:
        UnknownProject: the project is neither declared nor served.
        TransientError: see ``publish_events``.
    """
    if project not in await read_latest(options, SERVING_DESIRED):
        await require_project(options, project)
    async with Sender(options) as sender:
        await sender.take_back(PROJECT_DECLARED, project)
        await sender.flush()
        await sender.take_back(SERVING_DESIRED, project)
        await sender.flush()


async def declared_before(project: str, options: Mapping[str, Any]) -> ProjectSpec | None:
    """Return the current spec; None if there is none, or if this client may not read it."""
    try:
        declared = (await declared_projects(options)).get(project)
    except NotAllowed:
        return None
    return declared.spec if declared else None
