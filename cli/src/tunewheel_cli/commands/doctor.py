"""doctor: whether everything that an installation needs is as it must be."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.commands.status import HealthUrls
from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.reach import Reach, reaching

if TYPE_CHECKING:
    from tunewheel_cli.doctor.examination import Installation
    from tunewheel_cli.doctor.findings import Finding


def register(app: typer.Typer) -> None:
    app.command()(doctor)


@reaching
def doctor(
    reach: Reach,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]…",
            help="Whose rights this connection must have: services, upstream, cli, viewer or topics.",
            show_default="cli",
        ),
    ] = None,
    store_url: Annotated[
        str | None,
        typer.Option(
            envvar="TUNEWHEEL_STORE_URL", help="The object store.", show_default="that of the wheel here"
        ),
    ] = None,
    engine_url: Annotated[
        str | None,
        typer.Option(
            envvar="TUNEWHEEL_ENGINE_URL",
            help="Engines, separated by commas; TUNEWHEEL_ENGINE_API_KEY is sent.",
            show_default="that of the wheel here",
        ),
    ] = None,
    health_urls: HealthUrls = None,
) -> None:
    """Look for what is wrong with a Kafka, its topics and rights, the store, engines, processes and clocks.

    Before an installation and after it, from where its services run. Each finding says what to do. Exit code
    1: something is wrong. Nothing is changed but for one object in the store, which is removed again.
    """
    from tunewheel_cli.doctor.examination import examine
    from tunewheel_cli.doctor.findings import Verdict

    findings = asyncio.run(examine(_installation(reach, names, store_url, engine_url, health_urls)))
    bad = sum(finding.verdict is Verdict.WRONG for finding in findings)
    if reach.as_json:
        print_json({"wrong": bad, "findings": [
            {"about": one.about, "verdict": one.verdict, "text": one.text, "fix": one.fix} for one in findings
        ]})  # fmt: skip
    else:
        _print(findings)
    if bad:
        raise typer.Exit(Exit.FAILED)


def _installation(
    reach: Reach,
    names: list[str] | None,
    store_url: str | None,
    engine_url: str | None,
    health_urls: str | None,
) -> Installation:
    """Return what the options say; what they leave open is that of the wheel here, if it is meant."""
    from tunewheel_cli.acls import least_acls
    from tunewheel_cli.doctor.examination import Installation
    from tunewheel_cli.endpoint import Endpoint, given_key
    from tunewheel_cli.service_health import health_urls as addresses
    from tunewheel_cli.service_health import local_urls

    least_acls(names or ())  # refuses a name that is none
    wheel = reach.connection.wheel(reach.var)
    key = given_key("TUNEWHEEL_ENGINE_API_KEY")
    urls = (url.strip().rstrip("/") for url in (engine_url or "").split(","))
    engines = tuple(Endpoint("engine", url, key) for url in urls if url)
    if not engines and wheel is not None and wheel.url_of("engine"):
        engines = (Endpoint.of("engine", reach.var),)
    return Installation(
        options=reach.client_options(),
        prefix=reach.connection.settings(reach.var).topic_prefix,
        names=tuple(names or ("cli",)),
        store_url=store_url or (wheel.store_url if wheel else ""),
        engines=engines,
        health_urls=(*(local_urls(wheel.services).values() if wheel else ()), *addresses(health_urls)),
    )


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    colours = {"ok": "green", "wrong": "red", "not checked": "yellow"}
    table = Table(box=None, pad_edge=False, show_header=False)
    for one in findings:
        fix = f"\n→ {one.fix}" if one.fix else ""
        table.add_row(f"[{colours[one.verdict]}]{one.verdict}[/]", one.about, escape(one.text + fix))
    Console(highlight=False).print(table)
