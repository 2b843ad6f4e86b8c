"""Contexts: the wheels that a person knows by name, each with its addresses and its login.

The file is ``TUNEWHEEL_CONFIG``, else ``tunewheel/contexts.yaml`` in the configuration folder of the platform
(``XDG_CONFIG_HOME``, else ``~/.config``). It holds secrets, so that only its owner may read it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, SecretStr, SerializationInfo, ValidationError
from tunewheel_contracts.errors import first_complaint

from tunewheel_client.errors import InvalidContexts

T = TypeVar("T")
FILE = "TUNEWHEEL_CONFIG"
OWN_FILE = "contexts.yaml"
"""The file in the folder of a wheel on this machine, in which ``tunewheel up`` puts that wheel's context."""


def _written(value: SecretStr, info: SerializationInfo) -> str:
    return value.get_secret_value() if info.context == OWN_FILE else str(value)


Secret = Annotated[SecretStr, PlainSerializer(_written)]
"""A secret, which is written to the file of contexts alone. Every other dump shows asterisks."""


class _Kept(BaseModel):
    # Fields of a newer release stay in the file.
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)


class Tokens(_Kept):
    """What an OIDC issuer gave at the login, and where to renew it."""

    issuer: str
    client_id: str
    scope: str | None = None
    access_token: Secret
    refresh_token: Secret | None = None
    expires_at: float | None = None
    """Expiry of ``access_token``, in Unix seconds. None: the issuer did not say."""


class Addresses(_Kept):
    """The URLs of a wheel's services. None: the wheel does not say, or the service is not deployed."""

    console: str | None = None
    gateway: str | None = None
    ingest: str | None = None


class Context(_Kept):
    """One wheel: its address, and the login of the person who uses it. Printing it shows no secret."""

    url: str
    addresses: Addresses = Addresses()
    name: str | None = None
    """The name by which the wheel knows the caller."""
    project: str | None = None
    """The project that is meant where none is named."""
    key: Secret | None = None
    tokens: Tokens | None = None


class Contexts(_Kept):
    """The content of the file. ``current`` None: no context is in use."""

    current: str | None = None
    contexts: dict[str, Context] = {}


def path() -> Path:
    """Return the path of the person's file of contexts."""
    if named := os.environ.get(FILE):
        return Path(named).expanduser()
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "tunewheel" / "contexts.yaml"


def read(file: Path | None = None) -> Contexts:
    """Return the contexts of ``file`` (default: ``path()``); none where the file does not exist.

    Raises:
        InvalidContexts: the file cannot be read, others may read it, or its content is invalid.
    """
    import yaml

    file = file or path()
    try:
        if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
            raise InvalidContexts(f"{file}: holds secrets and others may read it; run `chmod 600 {file}`")
        text = file.read_text("utf-8")
    except FileNotFoundError:
        return Contexts()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidContexts(f"{file}: cannot be read: {error}") from error
    try:
        return Contexts.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:  # its message would quote the line, perhaps with a key
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        raise InvalidContexts(f"{file}: is not YAML{line}; correct it, or delete it and log in") from None
    except ValidationError as error:
        where, reason = first_complaint(error)
        raise InvalidContexts(f"{file}: {where} {reason}") from None


def change(work: Callable[[Contexts], tuple[Contexts, T]], file: Path | None = None) -> T:
    """Replace the content of ``file`` by what ``work`` makes of it, and return what else ``work`` returns.
    Other processes that change the file wait meanwhile.

    Raises:
        InvalidContexts: as ``read``; or the file cannot be written.
    """
    file = file or path()
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(file.parent):
            before = read(file)
            after, answer = work(before)
            if after != before or not file.exists():
                _replace(file, after)
            return answer
    except OSError as error:
        raise InvalidContexts(f"{file}: cannot be written: {error}") from error


def put(name: str, context: Context, *, use: bool = True, file: Path | None = None) -> None:
    """Keep ``context`` under ``name``. ``use``: it is the context in use from now on.

    Raises:
        InvalidContexts: the file cannot be read or written.
    """

    def work(found: Contexts) -> tuple[Contexts, None]:
        kept = {**found.contexts, name: context}
        return found.model_copy(update={"contexts": kept, "current": name if use else found.current}), None

    change(work, file)


def use(name: str, *, project: str | None = None, file: Path | None = None) -> Context:
    """Make ``name`` the context in use, and return it. ``project``: its default project from now on; None: as
    before.

    Raises:
        InvalidContexts: there is no such context, or the file cannot be read or written.
    """

    def work(found: Contexts) -> tuple[Contexts, Context]:
        _, chosen = named_in(found, name)
        if project is not None:
            chosen = chosen.model_copy(update={"project": project})
        kept = {**found.contexts, name: chosen}
        return found.model_copy(update={"contexts": kept, "current": name}), chosen

    return change(work, file)


def named_in(found: Contexts, name: str) -> tuple[str, Context]:
    """Return ``name`` and its context. Raises ``InvalidContexts`` if there is none."""
    if name not in found.contexts:
        listed = ", ".join(sorted(found.contexts)) or "none"
        raise InvalidContexts(f"context: there is no {name!r}; there is {listed}", param="context")
    return name, found.contexts[name]


def try_lock(file: Path) -> int | None:
    """Return a lock, which lets one process at a time renew the tokens in ``file``; None: another one has it.
    Windows has no such lock."""
    descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    if os.name == "posix":
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
    return descriptor


def unlock(lock: int) -> None:
    """Give a lock of ``try_lock`` back."""
    os.close(lock)


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Hold a lock on ``folder``, for which other processes wait. Windows has no such lock."""
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _replace(file: Path, content: Contexts) -> None:
    """Write ``content`` as one step. A reader sees the whole old or the whole new content."""
    import yaml

    text = yaml.safe_dump(content.model_dump(exclude_none=True, context=OWN_FILE), sort_keys=False)
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # with mode 600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fsync(descriptor)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
