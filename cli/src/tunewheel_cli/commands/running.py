"""up, down, topics: the running wheel."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.reach import Reach, reaching

_START = "What to start"


def register(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command()(topics)


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
    kafka_port: Annotated[int, typer.Option(help="Port of the local Kafka.", rich_help_panel=_START)] = 9092,
    port: Annotated[
        list[str] | None, typer.Option(help="NAME=N: another port for a service.", rich_help_panel=_START)
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
            help="URL of a vLLM or TGI that already runs, instead of the local engine.",
            rich_help_panel=_START,
        ),
    ] = None,
) -> None:
    """Start Kafka, the topics and the services, and keep them running until Ctrl-C.

    Without --bootstrap-servers a local Kafka is started, its data below the wheel's folder; with it, that
    Kafka is used. Logs lie in var/logs.
    """
    from tunewheel_cli.commands.starting import StartOptions, start_detached, start_here

    options = StartOptions(
        only=only,
        services=services,
        kafka_port=kafka_port,
        ports=tuple(port or ()),
        auto_ports=auto_ports,
        keep_topics=keep_topics,
        base_model=base_model,
        engine_url=engine_url,
    )
    plan = options.plan(reach)
    if detach:
        start_detached(reach, plan)
    else:
        raise typer.Exit(asyncio.run(start_here(reach, plan)))


@reaching
def down(reach: Reach) -> None:
    """Stop the wheel that runs on this folder, in good order."""
    from tunewheel_cli.stopping import stop_wheel

    stopped = stop_wheel(reach.var)
    if reach.as_json:
        print_json({"stopped": stopped})
    else:
        print("stopped" if stopped else f"nothing runs on {reach.var.root}")


@reaching
def topics(
    reach: Reach,
    apply: Annotated[bool, typer.Option("--apply", help="Make what is missing, alter what differs.")] = False,
) -> None:
    """Compare the topics of a Kafka with their specs; exit code 4 if they differ."""
    from tunewheel_cli.topics import check_topics, ensure_topics, wanted_topics

    options = reach.client_options()
    report = asyncio.run(ensure_topics(options, apply=True) if apply else check_topics(options))
    if reach.as_json:
        differences = [{"topic": d.topic, "setting": d.setting, "wanted": d.wanted, "actual": d.actual}
                       for d in report.differences]  # fmt: skip
        print_json({"missing": report.missing, "created": report.created, "differences": differences,
                    "altered": [str(d) for d in report.altered], "in_order": report.in_order})  # fmt: skip
    else:
        for name in report.created:
            print(f"made     {name}")
        for name in report.missing:
            print(f"missing  {name}")
        for difference in report.altered:
            print(f"altered  {difference.topic}: {difference.setting} = {difference.wanted}")
        for difference in report.differences:
            cure = "" if difference.curable else " (Kafka cannot take partitions away: make a new topic)"
            print(f"differs  {difference}{cure}")
        if report.in_order:
            print(f"{len(wanted_topics())} topics are in order")
    if not report.in_order:
        raise typer.Exit(Exit.DIFFERENT)
