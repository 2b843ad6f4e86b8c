"""Runs the demo: starts a wheel of its own, tells the story on it, writes the summary, and stops the
wheel."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunewheel_basemodel.carried import fetch_carried
from tunewheel_basemodel.errors import BaseModelUnreachable
from tunewheel_cli.calling import Call
from tunewheel_cli.console import login_text
from tunewheel_cli.lineage import ask_lineage, lineage_tree
from tunewheel_client import AsyncClient, ClientError
from tunewheel_contracts.errors import TunewheelError
from tunewheel_local import run_state
from tunewheel_local.connection import InvalidOption
from tunewheel_local.launch import Plan, Wheel
from tunewheel_local.places import Var
from tunewheel_local.roster import choose
from tunewheel_local.supervisor import Kept, State

from tunewheel_demo.example import Example
from tunewheel_demo.feed import EventFeed
from tunewheel_demo.gauge import fast_precision, processor
from tunewheel_demo.screen import Bar, Screen
from tunewheel_demo.story import Outcome, Story

MOST_NAMED = 3
"""The most programs that are named while the wheel starts."""
EXIT_REFUSED = 4
"""The first turn's adapter was refused, or nothing was promoted."""


PURPOSE = (
    "A help desk has answers of its experts. Tunewheel tunes a small model on them, judges it and serves it. "
    "Then customers ask something new: Tunewheel notices, and tunes again."
)


class DemoFailed(TunewheelError):
    """A step of the demo failed."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    example: Path
    var: Path
    keep: bool | None = None
    """Whether the wheel goes on running at the end; None: in a terminal."""
    quiet: bool = False
    quick: bool = False
    """One turn instead of two."""


async def run_demo(options: DemoOptions) -> int:
    """Run the demo; return the exit code: 0, or ``EXIT_REFUSED``.

    Raises:
        DemoFailed: a step failed; the message says which one, what was kept and how to go on.
        TunewheelError: something did not start; the message says what to do.
    """
    example, screen, outcome = Example.at(options.example), Screen(quiet=options.quiet), Outcome()
    await asyncio.to_thread(_empty, options.var)
    Var(options.var).precision.write_text(fast_precision(), "utf-8")
    screen.say(PURPOSE)
    try:
        await asyncio.to_thread(fetch_carried, example.spec.base_model)
    except BaseModelUnreachable as error:
        raise DemoFailed(str(error)) from error
    members = choose(None)
    plan = Plan(
        var=Var(options.var.resolve()), members=members, auto_ports=True, base_model=example.spec.base_model,
        # The example's customers are invented. Without a secret every demo makes the same versions.
        pseudonym_secret=False,
    )  # fmt: skip
    wheel: Wheel | None = None
    try:
        try:
            async with outcome.memory.running():
                with outcome.watch.stage("start"), screen.bar("start", len(members) + 1) as bar:
                    states: dict[str, State] = {}
                    wheel = Wheel(plan, report=lambda kept: show_start(bar, states, kept, len(members) + 1))
                    await wheel.start()
                try:
                    await _tell(wheel, example, screen, outcome, options)
                except Exception as error:
                    raise _failed(error, outcome.watch.failed, plan.var) from error
        finally:
            _write_summary(options.var / "summary.json", outcome, screen)
        if screen.is_watched if options.keep is None else options.keep:
            await _wait_for_the_end(wheel, example, screen)
    finally:
        if wheel is not None:
            with screen.bar("stop"):
                await wheel.stop()
    return 0 if outcome.turns[0].promoted else EXIT_REFUSED


def _empty(var: Path) -> None:
    """Make the demo's folder, or remove the files of an earlier demo from it, the mark of the folder last.

    Raises:
        InvalidOption: the folder has other files, and no demo's mark.
        AlreadyRunning: a wheel runs on the folder.
    """
    run_state.require_none(Var(var.resolve()).run_file)
    mark = Var(var).demo_mark
    if not mark.is_file() and var.exists() and any(var.iterdir()):
        raise InvalidOption(
            f"--var: {var} is not empty, and its files are no demo's; name another folder, or delete this one"
        )
    var.mkdir(parents=True, exist_ok=True)
    mark.touch()
    for entry in var.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry != mark:
            entry.unlink()


def _failed(error: Exception, step: str | None, var: Var) -> DemoFailed:
    """Return what to tell about ``error``, whose traceback is written beside the logs."""
    file = var.logs / "demo.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(traceback.format_exception(error)), "utf-8")
    why = str(error) or type(error).__name__
    return DemoFailed(
        f"demo: the step {step or 'follow the wheel'!r} failed: {why}; the traceback is in {file}, and the "
        f"services' logs lie beside it. What was published, built and trained is kept in {var.root}: "
        f"`tunewheel up --var {var.root}` starts this wheel again; `tunewheel demo` deletes it and begins "
        "anew"
    )


def show_start(bar: Bar, states: dict[str, State], kept: Kept, total: int) -> None:
    """Note a program's state in ``states``. Show on ``bar`` how many of ``total`` programs are ready, and
    which are waited for."""
    states[kept.program.name] = kept.state
    waited = [name for name, state in states.items() if state is not State.READY]
    ready = len(states) - len(waited)
    if len(waited) > MOST_NAMED:
        waited[MOST_NAMED:] = [f"{len(waited) - MOST_NAMED} more"]
    if not waited and ready < total:
        waited = ["Kafka's topics"]  # made between the broker and the services
    bar.to(ready, total, f"waits for {', '.join(waited)}" if waited else "all ready")


async def _tell(
    wheel: Wheel, example: Example, screen: Screen, outcome: Outcome, options: DemoOptions
) -> None:
    of_wheel, feed = Call(var=wheel.plan.var.root), EventFeed()
    context = of_wheel.target.context
    key = context.key.get_secret_value() if context.key else None
    doors = context.addresses.model_dump(include={"gateway", "ingest"})
    async with AsyncClient(context.url, key, **doors) as client:
        following = asyncio.create_task(feed.follow(client))
        story = Story(feed, client, example, screen, outcome, of_wheel.open)
        screen.say(f"  look on in the console: {await login_text(wheel.plan.var.root)}")
        try:
            last = first = await story.first_turn()
            if first.promoted and not options.quick:
                second = await story.second_turn(first)
                last = second if second.promoted else first
                if second.promoted:
                    await story.take_back(first, second)
            if last.promoted:
                screen.title(f"Where {last.model_id} comes from")
                with of_wheel.open() as reader:
                    screen.console.print(lineage_tree(ask_lineage(reader, story.project, last.model_id)))
        finally:
            following.cancel()
            outcome.events = feed.counts()
            with suppress(ClientError):
                outcome.dead_letters = (await client.dead_letters.list(limit=1)).total


async def _wait_for_the_end(wheel: Wheel, example: Example, screen: Screen) -> None:
    screen.title("The wheel keeps running until Ctrl-C. In another terminal")
    project, question = example.spec.project, example.questions()[0]
    screen.say(f"  export TUNEWHEEL_VAR={wheel.plan.var.root}")
    for command in (
        f"ask {json.dumps(question)} --project {project}",
        "status",
        "watch",
        f"model list --project {project}",
        "login",
    ):
        screen.console.print(f"  tunewheel {command}", soft_wrap=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def _write_summary(path: Path, outcome: Outcome, screen: Screen) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        **outcome.as_json(),
    }
    path.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", "utf-8")
    screen.title("Summary")
    for stage in summary["stages"]:
        screen.say(f"  {stage['name']:<20} {stage['seconds']:8.1f} s")
    if summary["first_tuned_answer_seconds"]:
        screen.say(f"  first tuned answer after {summary['first_tuned_answer_seconds']:.0f} s")
    screen.say(
        f"  total {summary['total_seconds']:.0f} s, peak memory {outcome.memory.peak_bytes / 2**30:.1f} GiB"
    )
    screen.say(f"  written to {path}")
