"""run pause, run resume, run cancel."""

from __future__ import annotations

from tunewheel_cli.calling import Call, Project, Request, Run, Timeout, calling, settle


@calling
def pause(call: Call, run: Run, project: Project, request: Request = None, timeout: Timeout = 30.0) -> None:
    """Pause a run: it writes a checkpoint and frees the machine."""
    _control(call, "pause", run, project, request, timeout)


@calling
def resume(call: Call, run: Run, project: Project, request: Request = None, timeout: Timeout = 30.0) -> None:
    """Let a paused run go on. One that was cancelled, or failed, is trained once more as it was asked for."""
    _control(call, "resume", run, project, request, timeout)


@calling
def cancel(call: Call, run: Run, project: Project, request: Request = None, timeout: Timeout = 30.0) -> None:
    """End a run."""
    _control(call, "cancel", run, project, request, timeout)


def _control(call: Call, action: str, run: str, project: str, request: str | None, timeout: float) -> None:
    accepted = getattr(call.writer.runs, action)(project, run, request=request)
    command = settle(call, project, accepted, timeout)
    call.show(command or accepted, f"{action} asked of {run}")
