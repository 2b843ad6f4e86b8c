"""Lists the requests for labels: prompts of production that wait for trusted answers."""

from __future__ import annotations

from tunewheel_runtime.identity.roles import Caller, Role

from tunewheel_console.labelling import Labelling
from tunewheel_console.queue_list import Line
from tunewheel_console.state import ConsoleState

TITLES = ("Waiting for answers", "Ended")


async def label_lines(state: ConsoleState, labelling: Labelling, caller: Caller) -> list[Line]:
    """Return the requests that ``caller`` may answer. The progress is read from the store, because other
    consoles take answers too.

    Raises:
        TransientError: the store is away.
    """
    lines: list[Line] = []
    for project in list(state.projects.values()):
        if not caller.may(Role.REVIEWER, project.name):
            continue
        for name, request in list(project.labels.by_id.items()):
            asked, outcome = request.data, project.labels.outcome_of(name)
            done = await labelling.done(asked)
            told = f"{done['answered']} answered of {asked.wanted} wanted"
            told += f", {done['out_of_scope']} out of scope" if done["out_of_scope"] else ""
            lines.append(
                Line(
                    name=f"{project.name}: {', '.join(asked.keywords) or name}",
                    path=f"labels/{project.name}/{name}",
                    told=f"{told}; {outcome}" if outcome else told,
                    waits=outcome is None,
                )
            )
    return lines
