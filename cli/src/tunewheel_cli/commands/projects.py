"""project declare, project remove, dataset build."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from tunewheel_cli.exits import print_json
from tunewheel_cli.reach import Reach, named_project, reaching


@reaching
async def declare(
    reach: Reach, spec: Annotated[Path, typer.Argument(help="The project's YAML.", show_default=False)]
) -> None:
    """Check a project spec and put it in force."""
    from tunewheel_outputs.specs import untold_change

    from tunewheel_cli.power_tables import find_power, power_as_json, power_cautions, power_lines
    from tunewheel_cli.specs import check_sources, declared_before, read_spec
    from tunewheel_cli.specs import declare as put_in_force

    checked = read_spec(spec)
    check_sources(checked, reach.var, reach.connection.settings(reach.var).bootstrap_servers)
    before = await declared_before(checked.project, reach.client_options())
    event = await put_in_force(checked, reach.client_options(), reach.principal())
    power = find_power(checked, silent=reach.as_json)
    cautions = (*checked.cautions, *power_cautions(power))
    if reach.as_json:
        print_json({"project": checked.project, "event_id": event.id, "spec_sha256": checked.sha256,
                    "criteria_sha256": checked.criteria_sha256, "cautions": cautions,
                    "power": power_as_json(power)})  # fmt: skip
    else:
        print(
            f"declared {checked.project}: {len(checked.criteria)} criteria, base model {checked.base_model}"
        )
        print("\n".join(power_lines(power)))
        for caution in cautions:
            print(f"caution: {caution}", file=sys.stderr)
        if (note := untold_change(before, checked)) is not None:
            print(f"note: {note}", file=sys.stderr)


@reaching
def remove(
    reach: Reach,
    project: Annotated[str, typer.Argument(help="The project's name.", callback=named_project)],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take back a project's declaration: nothing of it is built, trained, watched or served any more.

    What was published, built and trained stays, and `tunewheel project declare` brings it back. To erase what
    was published about a person, use `tunewheel forget` first.
    """
    from tunewheel_cli.specs import remove as take_back

    reach.principal()
    options = reach.client_options()
    if not yes and not reach.as_json:
        typer.confirm(f"Stop building, training, watching and serving {project}?", abort=True)
    asyncio.run(take_back(project, options))
    reach.show(
        {"project": project, "removed": True},
        f"removed {project}; `tunewheel project declare` brings it back",
    )
