"""What the commands over the control API share: which wheel is meant, the project, JSON, and waiting."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from tunewheel_contracts.errors import SLUG, SLUG_IN_WORDS, TunewheelError

from tunewheel_cli.exits import reporting, show
from tunewheel_cli.texts import printable

if TYPE_CHECKING:
    from tunewheel_client import Client
    from tunewheel_client.target import Target
    from tunewheel_contracts.api.commands import Accepted, Command

F = TypeVar("F", bound=Callable[..., Any])
COMPLETION_SECONDS = 1.0
SPEC_FILE = "project.yaml"


class InvalidOption(TunewheelError):
    """An option or an argument of the command line has an invalid value."""


def named_project(value: str | None) -> str | None:
    """Refuse what cannot be a project's name before it becomes part of an address."""
    import re

    if value and not re.fullmatch(SLUG, value):
        raise typer.BadParameter(f"{value!r} is no project's name; give {SLUG_IN_WORDS}")
    return value


def completing(noun: str, name: str) -> Callable[[Any, list[str], str], list[str]]:
    """Return the completion of ``noun``'s ids, which are the field ``name`` of what the API lists. Whatever
    goes wrong completes nothing: a person who presses TAB reads no errors."""

    def complete(ctx: Any, args: list[str], incomplete: str) -> list[str]:
        try:
            given = ctx.params
            call = Call(given.get("context"), given.get("var"), as_json=True)
            with call.open(timeout_seconds=COMPLETION_SECONDS) as client:
                inside = () if noun == "projects" else (call.project_or_default(given.get("project")),)
                page = getattr(client, noun).list(*inside, limit=1000)
                return [found for one in page.items if (found := getattr(one, name)).startswith(incomplete)]
        except (TunewheelError, typer.BadParameter, AttributeError):
            return []

    return complete


Project = Annotated[
    str,
    typer.Option(
        "--project", "-p", help="The project.", callback=named_project, envvar="TUNEWHEEL_PROJECT",
        show_default="the context's, or that of project.yaml here", show_envvar=False,
        autocompletion=completing("projects", "project"),
    ),
]  # fmt: skip
Run = Annotated[
    str,
    typer.Argument(
        help="A run: its id, the beginning of it, or latest.", autocompletion=completing("runs", "run_id")
    ),
]
Model = Annotated[
    str,
    typer.Argument(
        help="A model: its id, the beginning of it, champion, challenger, base, or latest.",
        autocompletion=completing("models", "model_id"),
    ),
]
Dataset = Annotated[
    str,
    typer.Argument(
        help="A version: its id, the beginning of it, or latest.",
        autocompletion=completing("datasets", "dataset_id"),
    ),
]
Request = Annotated[
    str | None, typer.Option(help="Names this command: the same name again is the same command.")
]
Limit = Annotated[int, typer.Option(help="The most to show, newest first.", min=1, max=1000)]
Timeout = Annotated[
    float, typer.Option("--timeout", help="Seconds to wait until it is done; 0 does not wait.", min=0)
]


@dataclass(slots=True)
class Call:
    """One call of a command."""

    context: str | None = None
    var: Path | None = None
    as_json: bool = False
    _client: Client | None = field(default=None, repr=False)
    _has_told: bool = field(default=False, repr=False)

    @property
    def client(self) -> Client:
        """The client of the wheel that is meant.

        Raises:
            NoAddress, InvalidContexts: see ``target``.
        """
        if self._client is None:
            self._client = self.open()
        return self._client

    @property
    def writer(self) -> Client:
        """The same client, for a command that changes something: says first, once, which wheel is meant."""
        if not self._has_told:
            self._has_told = True
            named = f" ({self.target.name})" if self.target.name else ""
            self.tell(f"on {self.client.url}{named}")
        return self.client

    def open(self, **options: Any) -> Client:
        """Return a new client of the wheel that is meant. ``options`` are the client's."""
        from tunewheel_client import Client

        return Client(context=self.context, folder=self.var, **options)

    @property
    def target(self) -> Target:
        """Which wheel is meant: the one of --context, of the folder --var, of the environment, the context in
        use, or the wheel on ./var.

        Raises:
            NoAddress, InvalidContexts: none is meant, or the contexts cannot be read.
        """
        from tunewheel_client.target import resolve

        return resolve(context=self.context, folder=self.var)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def project_or_default(self, named: str | None) -> str:
        """Return the project that is meant: the one named, the context's, or that of project.yaml here.

        Raises:
            InvalidOption: there is none.
        """
        found = named or self.target.context.project or _project_here()
        if found is None:
            raise InvalidOption(
                "--project: no project is named; add -p PROJECT, keep one with `tunewheel context use NAME "
                f"-p PROJECT`, or go to the folder of its {SPEC_FILE}"
            )
        return found

    def show(self, value: Any, text: str | Callable[[], object]) -> None:
        """Print the command's result: see ``exits.show``."""
        show(value, text, as_json=self.as_json)

    def tell(self, text: str) -> None:
        """Say something beside the result, on standard error."""
        if not self.as_json:
            print(printable(text), file=sys.stderr)


class Unfinished(TunewheelError):
    """A command was not carried out in time. It stays on the log, and counts once its service is back."""


def settle(call: Call, project: str, accepted: Accepted, timeout_seconds: float) -> Command | None:
    """Wait until the services have carried out a command, and return what became of it; None: the caller does
    not wait.

    Raises:
        Refused: a service refused the command, with field and reason.
        Unfinished: no service has answered in time.
    """
    from tunewheel_client import Away

    if not timeout_seconds:
        return None
    commands = call.client.commands
    try:
        return commands.wait(project, accepted.command_id, timeout_seconds=timeout_seconds)
    except Away as error:
        if error.status is None and commands.show(project, accepted.command_id).state == "waiting":
            raise Unfinished(
                f"no answer within {timeout_seconds:g} s to the command {accepted.command_id}; it stays on "
                "the log, and counts once its service is back: is it running (`tunewheel status`)?"
            ) from error
        raise


def _project_here() -> str | None:
    import re

    try:
        text = Path(SPEC_FILE).read_text("utf-8")
    except (OSError, ValueError):
        return None
    found = re.search(r"^project:[ \t]*[\"']?([^\"'\s#]+)", text, re.MULTILINE)
    return found[1] if found and re.fullmatch(SLUG, found[1]) else None


_SHARED: dict[str, Any] = {
    "context": Annotated[
        str | None,
        typer.Option(help="The wheel, as `tunewheel context list` names it.", show_default="the one in use"),
    ],
    "var": Annotated[
        Path | None,
        typer.Option(
            "--var", envvar="TUNEWHEEL_VAR", help="Folder of a wheel on this machine.", show_default="./var"
        ),
    ],
    "as_json": Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")],
}


def calling(command: F) -> F:
    """Replace a command's first parameter, ``call: Call``, by the options that these commands share.

    A parameter ``project`` without a default gets the project that is meant.
    """
    project = inspect.signature(command).parameters.get("project")

    def run(values: dict[str, Any]) -> None:
        call = Call(values.pop("context"), values.pop("var"), values.pop("as_json"))
        try:
            if project is not None and project.default is project.empty:
                values["project"] = call.project_or_default(values["project"])
            command(call, **values)
        finally:
            call.close()

    return with_options(command, _SHARED, run)


def with_options(command: F, shared: Mapping[str, Any], run: Callable[[dict[str, Any]], Any]) -> F:
    """Return ``command`` with the options ``shared`` instead of its first parameter. ``run`` gets all values
    by name. Its errors become one line on standard error and an exit code."""
    kind, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    own = [
        one.replace(kind=kind, default="" if one.name == "project" and one.default is empty else one.default)
        for one in [*inspect.signature(command, eval_str=True).parameters.values()][1:]
    ]
    options = [
        inspect.Parameter(name, kind, default=False if name == "as_json" else None, annotation=option)
        for name, option in shared.items()
    ]

    @wraps(command)
    def reported(**values: Any) -> Any:
        with reporting(as_json=values["as_json"]):
            return run(values)

    reported.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    reported.__annotations__ = {}
    return reported  # type: ignore[return-value]
