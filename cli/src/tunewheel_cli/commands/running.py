"""up, down: start and stop the wheel."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from tunewheel_cli.reach import Reach, on_folder, reaching

_START = "What to start"


@reaching
def up(
    reach: Reach,
    only: Annotated[
        str | None, typer.Option(help="Start this alone: broker, or one service.", rich_help_panel=_START)
    ] = None,
    services: Annotated[
        str | None,
        typer.Option(help="Comma-separated services to start.", show_default="all", rich_help_panel=_START),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all is ready.")] = False,
    kafka_port: Annotated[
        int, typer.Option(min=1, max=65_535, help="Port of the local Kafka.", rich_help_panel=_START)
    ] = 9092,
    port: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=N: another port for a service; NAME-health=N: for its health.", rich_help_panel=_START
        ),
    ] = None,
    auto_ports: Annotated[
        bool,
        typer.Option("--auto-ports", help="Take a free port where one is in use.", rich_help_panel=_START),
    ] = False,
    keep_topics: Annotated[
        bool,
        typer.Option(
            "--keep-topics", help="Start although topics differ from their specs.", rich_help_panel=_START
        ),
    ] = False,
    base_model: Annotated[
        str | None,
        typer.Option(help="Base model of the local engine: hub id or folder.", rich_help_panel=_START),
    ] = None,
    engine_url: Annotated[
        str | None,
        typer.Option(
            help="URL of a vLLM or TGI that already runs, instead of the local engine; several by commas.",
            rich_help_panel=_START,
        ),
    ] = None,
) -> None:
    """Start Kafka, the topics and the services, and keep them running until Ctrl-C.

    Without --bootstrap-servers a local Kafka is started, its data below the wheel's folder; with it, that
    Kafka is used. Logs lie in var/logs.
    """
    from tunewheel_cli.commands.starting import plan_of, start_detached, start_here

    plan = plan_of(
        reach,
        only=only,
        services=services,
        kafka_port=kafka_port,
        ports=port or (),
        auto_ports=auto_ports,
        keep_topics=keep_topics,
        base_model=base_model,
        engine_url=engine_url,
    )
    if detach:
        start_detached(reach, plan)
    else:
        raise typer.Exit(asyncio.run(start_here(reach, plan)))


@on_folder
def down(reach: Reach) -> None:
    """Stop the wheel that runs on this folder, in good order."""
    from rich.console import Console
    from tunewheel_local.run_state import stop_wheel

    with Console(stderr=True, quiet=reach.as_json).status("stopping; services checkpoint first …"):
        stopped = stop_wheel(reach.var)
    reach.show({"stopped": stopped}, "stopped" if stopped else f"nothing runs on {reach.var.root}")
