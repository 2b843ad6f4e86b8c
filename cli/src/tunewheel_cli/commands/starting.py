"""Starts a wheel in this process or in the background, for ``up``."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.cache import cache_dir
from tunewheel_local import leash
from tunewheel_local.connection import InvalidOption
from tunewheel_local.launch import Plan, Wheel
from tunewheel_local.places import Var
from tunewheel_local.roster import BROKER, CONSOLE, ROSTER, choose
from tunewheel_local.run_state import RunState, require_none
from tunewheel_local.supervisor import StartFailed

from tunewheel_cli.console import login_text
from tunewheel_cli.exits import Exit, leave, print_json

if TYPE_CHECKING:
    from tunewheel_cli.reach import Reach

BACKGROUND_SECONDS = 900.0


def plan_of(
    reach: Reach,
    *,
    only: str | None,
    services: str | None,
    ports: Sequence[str],
    engine_url: str | None,
    **others: Any,
) -> Plan:
    """Return the plan for the options of ``up`` as they were typed. ``others`` are fields of the plan.

    Raises:
        InvalidOption, UnknownService: an option has an invalid value.
        InvalidCacheDir: ``TUNEWHEEL_CACHE_DIR`` has one.
    """
    cache_dir()  # before a broker starts that cannot use it
    if only and services:
        raise InvalidOption("--only: cannot be given together with --services; use one of them")
    names = services.split(",") if services is not None else None
    if only:
        names = [] if only == BROKER else [only]
    if names is not None:
        names = [name.strip() for name in names if name.strip()]
    members = choose(names, option="--only" if only else "--services")
    if engine_url:
        members = tuple(member for member in members if member.name != "engine")
    numbers = dict(_parse_port(text) for text in ports)
    return Plan(reach.var, members, reach.connection, ports=numbers, engine_url=engine_url, **others)


async def start_here(reach: Reach, plan: Plan) -> int:
    """Run the wheel in this process until a signal; return the exit code: 1 where it came before all was
    ready."""
    from tunewheel_cli.commands.progress import StartDisplay

    require_none(plan.var.run_file)  # before anything is said of stopping
    plan.var.demo_mark.unlink(missing_ok=True)  # From now on the folder is a wheel's that no demo may delete.
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    with StartDisplay(silent=reach.as_json) as display:
        wheel = Wheel(plan, report=display.note, jar_progress=display.jars)
        starting = asyncio.create_task(wheel.start())
        stopped = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
            ready = starting.done()
            if ready:
                starting.result()
                display.running(wheel.state, logs=plan.var.logs, end="Ctrl-C")
                if CONSOLE in plan.members:
                    hint = "`tunewheel login` prints a link to the console"
                    watched = display.is_watched and not reach.as_json
                    display.login(await login_text(plan.var.root) if watched else hint)
                if reach.as_json:
                    print_json(summary(wheel.state))
                await stopped
        finally:
            starting.cancel()
            stopped.cancel()
            await asyncio.gather(starting, stopped, return_exceptions=True)
            display.stopping()
            await wheel.stop()
    return Exit.OK if ready else Exit.FAILED


def start_detached(reach: Reach, plan: Plan) -> None:
    """Start a supervisor in the background and return once all is ready."""
    from tunewheel_cli.commands.progress import StartDisplay

    require_none(plan.var.run_file)
    plan.var.run_file.unlink(missing_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--detach", "-d")]
    argv = [sys.executable, "-m", "tunewheel_cli.main", *arguments]
    log = plan.var.logs / "supervisor.log"
    process = leash.spawn(argv, log=log, leashed=False)
    deadline = time.monotonic() + BACKGROUND_SECONDS
    with StartDisplay(silent=reach.as_json) as display:
        while True:
            ended = process.poll() is not None  # before reading the state, so that none is missed
            state = RunState.read(plan.var.run_file)
            if state is not None:
                display.state(state)
            if state is not None and state.phase == "running":
                break
            if ended:
                reason = state.error if state and state.error else f"the supervisor ended; its log is {log}"
                leave(StartFailed(reason), as_json=reach.as_json)
            if time.monotonic() > deadline:
                leave(
                    StartFailed(f"not ready after {BACKGROUND_SECONDS:g} s; its log is {log}"),
                    as_json=reach.as_json,
                )
            time.sleep(0.1)
        display.running(state, logs=plan.var.logs, end=f"`{_down(plan.var)}`")
        if CONSOLE in plan.members and not reach.as_json:
            display.login(asyncio.run(login_text(plan.var.root)))
    if reach.as_json:
        print_json(summary(state))


def _down(var: Var) -> str:
    """Return the command that stops the wheel on ``var``."""
    return "tunewheel down" if var == Var.at() else f"tunewheel down --var {shlex.quote(str(var.root))}"


def summary(state: RunState) -> dict[str, object]:
    """Return what ``up --json`` prints."""
    return {"bootstrap_servers": state.bootstrap_servers, "services": state.services}


def _parse_port(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    names = [port_name for member in ROSTER for port_name in member.ports]
    if name not in names or not number.isdecimal():
        raise InvalidOption(
            f"--port: {text!r} is not NAME=N, such as console=8090; the names are {', '.join(names)}"
        )
    port = int(number)
    if not 0 < port < 65_536:
        raise InvalidOption(f"--port: {port} is no port; give 1 to 65535")
    return name, port
