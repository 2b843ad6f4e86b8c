"""Declares a project. The YAML is checked here, before anything is published."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec, parse_spec
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED
from tunewheel_local.endpoint import NotAllowed
from tunewheel_local.places import Var
from tunewheel_local.run_state import living
from tunewheel_outputs.criteria import check_criteria

from tunewheel_cli.publishing.sender import Sender, publish
from tunewheel_cli.reading import declared_projects, read_latest, require_project

MAX_SPEC_BYTES = 1 << 20


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
    spec = parse_spec(text)
    check_criteria(spec)
    if spec.trains_with_passages and spec.retrieval is not None and spec.retrieval.default == "off":
        reason = (
            "puts passages into the prompts that train, but retrieval.default is off: the model would be "
            'judged and serve without them; write default: "on", or leave training out'
        )
        raise InvalidSpec(field="retrieval.training", reason=reason)
    return spec


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


def untold_change(before: ProjectSpec | None, after: ProjectSpec) -> str | None:
    """Return a sentence about changes of ``after`` that do not take effect yet; None if there are none.

    Settings that determine answers are served as they were evaluated, together with the evaluated version.
    """
    if before is None:
        return None
    pairs = {
        "task.system_prompt": (before.task.system_prompt, after.task.system_prompt),
        "task.max_output_tokens": (before.task.max_output_tokens, after.task.max_output_tokens),
        "evaluation.decoding": (before.evaluation.decoding, after.evaluation.decoding),
    }
    changed = [name for name, (old, new) in pairs.items() if old != new]
    if not changed:
        return None
    return (
        f"{' and '.join(changed)} changed: models that were judged serve as they were judged until a version "
        "that is built from now on is promoted; `tunewheel dataset build` asks for one"
    )


async def declared_before(project: str, options: Mapping[str, Any]) -> ProjectSpec | None:
    """Return the current spec; None if there is none, or if this client may not read it."""
    try:
        declared = (await declared_projects(options)).get(project)
    except NotAllowed:
        return None
    return declared.spec if declared else None


async def request_build(
    project: str, request: str, options: Mapping[str, Any], principal: Principal | None
) -> Envelope[DatasetRequested]:
    """Request a dataset version. ``request`` distinguishes repeated requests."""
    data = DatasetRequested(project=project, reason=BuildReason.COMMAND, request=request, principal=principal)
    return (await publish(options, data))[0]
