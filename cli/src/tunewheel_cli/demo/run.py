"""``run_demo``: a wheel of the demo's own, the story on it, the summary, and everything stopped again."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from tunewheel_contracts import topics
from tunewheel_contracts.errors import TunewheelError

from tunewheel_cli.connection import Connection
from tunewheel_cli.demo.example import Example
from tunewheel_cli.demo.gateway import GatewayClient
from tunewheel_cli.demo.screen import Screen
from tunewheel_cli.demo.story import Outcome, Story
from tunewheel_cli.feed import EventFeed
from tunewheel_cli.launch import Plan, Wheel
from tunewheel_cli.lineage import lineage_of, lineage_tree
from tunewheel_cli.places import Var
from tunewheel_cli.reading import dead_letter_count
from tunewheel_cli.roster import choose

EXIT_REFUSED = 4
"""The first turn's adapter was refused, or nothing was promoted."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    example: Path
    var: Path
    keep: bool = False
    quiet: bool = False
    one_turn: bool = False


async def run_demo(options: DemoOptions) -> int:
    """Run the demo; return the exit code: 0, or ``EXIT_REFUSED``.

    Raises:
        TunewheelError: something did not start, or the wheel stopped on the way; the message says what to do.
    """
    example, screen, outcome = Example.at(options.example), Screen(quiet=options.quiet), Outcome()
    await asyncio.to_thread(shutil.rmtree, options.var, ignore_errors=True)
    plan = Plan(
        var=Var(options.var.resolve()),
        members=choose(None),
        auto_ports=True,
        base_model=example.spec.base_model,
    )
    wheel = Wheel(plan)
    try:
        async with outcome.memory.running():
            await _tell(wheel, example, screen, outcome, options)
        if options.keep:
            await _wait_for_the_end(wheel, screen)
    finally:
        with outcome.watch.stage("stop"):
            await wheel.stop()
        _write_summary(options.var / "summary.json", outcome, screen)
    served = outcome.turns[0].passed if outcome.turns else False
    return 0 if served else EXIT_REFUSED


async def _tell(
    wheel: Wheel, example: Example, screen: Screen, outcome: Outcome, options: DemoOptions
) -> None:
    with outcome.watch.stage("start"), screen.bar("start", len(wheel.plan.members) + 1) as bar:
        wheel.on_report = lambda _: bar.to(wheel.ready_count, len(wheel.plan.members) + 1)
        await wheel.start()
    settings = Connection(bootstrap_servers=wheel.bootstrap_servers).settings()
    async with EventFeed(settings) as feed, GatewayClient(wheel.url_of("gateway")) as gateway:
        story = Story(wheel, feed, gateway, example, screen, outcome, settings)
        try:
            last = first = await story.first_turn()
            if first.passed and not options.one_turn:
                second = await story.second_turn(first)
                last = second if outcome.second_promoted else first
            if last.passed:
                screen.title(f"Where {last.model_id} comes from")
                tree = lineage_of(last.model_id, feed.events, store_url=wheel.plan.var.store_url)
                screen.console.print(lineage_tree(tree))
        finally:
            outcome.events = feed.counts()
            letters = [t.dead_letter for t in topics.TOPICS if t.consumers]
            outcome.dead_letters = await dead_letter_count(settings, letters)


async def _wait_for_the_end(wheel: Wheel, screen: Screen) -> None:
    screen.title("Left running (Ctrl-C stops it)")
    for name in ("gateway", "console", "registry"):
        screen.say(f"  {name:<9} {wheel.url_of(name)}")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def _write_summary(path: Path, outcome: Outcome, screen: Screen) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    summary = outcome.as_json()
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


__all__ = ["EXIT_REFUSED", "DemoOptions", "TunewheelError", "run_demo"]
