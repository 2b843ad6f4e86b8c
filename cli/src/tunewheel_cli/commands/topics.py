"""topics, topics acls: the topics that Kafka needs, and the rights of each principal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tunewheel_cli.calling import SPEC_FILE
from tunewheel_cli.exits import Exit, print_json
from tunewheel_cli.reach import Reach, reaching


@reaching
async def topics(
    reach: Reach,
    apply: Annotated[bool, typer.Option("--apply", help="Make what is missing, alter what differs.")] = False,
) -> None:
    """Compare the topics of a Kafka with their specs; exit code 4 if they differ."""
    from tunewheel_local.topics import check_topics, ensure_topics, wanted_topics

    options = reach.client_options()
    if apply:
        reach.tell_place()
    report = await (ensure_topics(options, apply=True) if apply else check_topics(options))
    report = report.under(reach.connection.settings(reach.var).topic_prefix)
    if reach.as_json:
        differences = [asdict(difference) for difference in report.differences]
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


@reaching
def acls(
    reach: Reach,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]…",
            help="Services, upstream-tickets and its like, cli or topics.",
            show_default="all",
        ),
    ] = None,
    principals: Annotated[
        str, typer.Option(help="What Kafka calls them: a prefix, or all of a certificate's subject.")
    ] = "tunewheel-{name}",
    specs: Annotated[
        list[Path] | None,
        typer.Option(
            "--spec",
            help="The YAML of a project whose sources ingest reads; may be repeated.",
            show_default=f"{SPEC_FILE}, if it is there",
        ),
    ] = None,
    as_commands: Annotated[
        bool, typer.Option("--commands", help="Print kafka-acls.sh commands, to paste into a shell.")
    ] = False,
) -> None:
    """Print the least rights that each service, upstream, and people at this command need of Kafka.

    Nothing is asked of a Kafka, and nothing is changed there. Topics of other systems are those that the
    sources of the specs name.
    """
    from tunewheel_cli.acls import PRINCIPALS, commands, least_acls, principal
    from tunewheel_cli.spec_file import read_spec
    from tunewheel_cli.texts import print_table

    kafka = reach.connection.settings(reach.var)
    paths = specs or [path for path in (Path(SPEC_FILE),) if path.exists()]
    found = least_acls(
        names or tuple(PRINCIPALS), prefix=kafka.topic_prefix, specs=[read_spec(path) for path in paths]
    )
    named = {acl.name: principal(acl.name, principals) for acl in found}
    if reach.as_json:
        print_json([{"name": acl.name, "principal": named[acl.name], "resource_type": acl.kind,
                     "resource_name": acl.resource, "pattern_type": "literal", "operations": acl.operations}
                    for acl in found])  # fmt: skip
    elif as_commands:
        lines = commands(found, template=principals, bootstrap_servers=kafka.bootstrap_servers)
        print("\n".join(lines))
    else:
        for name, called in named.items():
            print(f"{called}  {PRINCIPALS[name]}")
            rows = [(acl.kind, acl.resource, acl.operations) for acl in found if acl.name == name]
            print_table(("kind", "name", "operations"), rows)
