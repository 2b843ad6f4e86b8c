"""doctor: checks everything that an installation needs."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from tunewheel_cli.exits import Exit
from tunewheel_cli.reach import Reach, reaching

if TYPE_CHECKING:
    from tunewheel_local.places import Var
    from tunewheel_local.run_state import RunState

    from tunewheel_cli.doctor.endpoints import Engine
    from tunewheel_cli.doctor.examination import Installation
    from tunewheel_cli.doctor.findings import Finding

HealthUrls = Annotated[
    str | None,
    typer.Option(
        envvar="TUNEWHEEL_HEALTH_URLS",
        help="Ports of health of processes elsewhere, separated by commas.",
        show_default=False,
    ),
]


@reaching
async def doctor(
    reach: Reach,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]…",
            help="Whose rights this connection must have: services, upstream, cli or topics.",
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

    findings = await examine(_installation(reach, names, store_url, engine_url, health_urls))
    bad = sum(finding.verdict is Verdict.WRONG for finding in findings)
    reach.show({"wrong": bad, "findings": [asdict(one) for one in findings]}, lambda: _print(findings))
    if bad:
        raise typer.Exit(Exit.FAILED)


def _installation(
    reach: Reach,
    names: list[str] | None,
    store_url: str | None,
    engine_url: str | None,
    health_urls: str | None,
) -> Installation:
    """Return the installation to check: from the options, else from the wheel here, if the connection is
    its."""
    from tunewheel_cli.acls import least_acls
    from tunewheel_cli.doctor.examination import Installation
    from tunewheel_cli.service_health import local_urls, parse_health_urls

    least_acls(names or ())  # raises for an unknown name
    wheel = reach.connection.wheel(reach.var)
    engines, authority = engines_of(engine_url, wheel, reach.var)
    local = local_urls(wheel.services).values() if wheel else ()
    return Installation(
        options=reach.client_options(),
        prefix=reach.connection.settings(reach.var).topic_prefix,
        names=tuple(names or ("cli",)),
        store_url=store_url or (wheel.store_url if wheel else ""),
        engines=engines,
        engine_authority=authority,
        health_urls=tuple(dict.fromkeys((*local, *parse_health_urls(health_urls)))),
    )


def engines_of(engine_url: str | None, wheel: RunState | None, var: Var) -> tuple[tuple[Engine, ...], str]:
    """Return the engines, with the key that the gateway sends, and the variable of the trusted authority.

    For the wheel here, these are the gateway's values from ``roster.environment``.
    """
    from pydantic import SecretStr
    from tunewheel_client.target import key_of, sendable
    from tunewheel_local.http import HTTP_CAFILE, resolved
    from tunewheel_local.wheel_secrets import local_key

    from tunewheel_cli.doctor.endpoints import ENGINE_CAFILE, Engine

    told = sendable(key_of(os.environ, "TUNEWHEEL_ENGINE_API_KEY"))
    key = SecretStr(told) if told else None
    urls = resolved(engine_url, option="--engine-url", advice="give the key in TUNEWHEEL_ENGINE_API_KEY")
    if urls or wheel is None:
        return tuple(Engine(url, key) for url in urls), ENGINE_CAFILE
    own = wheel.url_of("engine")
    engines = (Engine(own, key or local_key(var)),) if own else ()
    return engines, HTTP_CAFILE if HTTP_CAFILE in os.environ else ENGINE_CAFILE


def _print(findings: list[Finding]) -> None:
    from tunewheel_cli.texts import flat

    for one in findings:
        print(f"{one.verdict:11}  {one.about:8}  {flat(one.text)}")
        if one.fix:
            print(f"{'':21}  → {flat(one.fix)}")
