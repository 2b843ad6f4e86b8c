"""The secrets of one wheel on this machine. The first ``up`` on its folder creates them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import SecretStr
from tunewheel_client import InvalidContexts, contexts
from tunewheel_contracts.errors import TunewheelError
from tunewheel_runtime.files import one_at_a_time, replace_file
from tunewheel_runtime.identity import key_file

from tunewheel_local.places import Var

LOCAL = "local"
"""The name of the wheel's own key in its file of keys."""


class SecretsUnusable(TunewheelError):
    """The folder of secrets cannot be read or written, or its files do not fit together."""


@dataclass(frozen=True, slots=True)
class WheelSecrets:
    """The secrets that the services of one wheel share. ``keys_file`` holds the hash of ``api_key``."""

    api_key: SecretStr
    keys_file: Path
    session_secret: SecretStr
    pseudonym_secret: SecretStr | None
    """None: this folder's dataset versions were made without a secret, or its first log or store came from
    elsewhere."""
    signing_keys: Mapping[str, SecretStr]
    """The private keys of the services that publish commands, by service."""
    signing_keys_file: Path
    """The public keys."""


def local_key(var: Var) -> SecretStr | None:
    """Return the key of the wheel on ``var``; None: none was made.

    Raises:
        SecretsUnusable: the file exists but cannot be read.
    """
    return _read(var.identity / "api-key")


def pseudonym_secret(var: Var) -> SecretStr | None:
    """Return the secret of the pseudonyms in dataset versions of the wheel on ``var``:
    ``TUNEWHEEL_PSEUDONYM_SECRET``, else the folder's own, else None.

    Raises:
        SecretsUnusable: the file exists but cannot be read.
    """
    configured = os.environ.get("TUNEWHEEL_PSEUDONYM_SECRET")
    return SecretStr(configured) if configured else _read(var.identity / "pseudonym-secret")


def make_secrets(var: Var, *, pseudonyms: bool) -> WheelSecrets:
    """Return the secrets of the wheel on ``var``, and create missing ones.

    Args:
        pseudonyms: whether a folder without a log and a store gets a ``pseudonym_secret``. A folder with one
            of them never gets one, because its dataset versions were made without it.

    Raises:
        SecretsUnusable
    """
    from tunewheel_runtime.identity.command_keys import SIGNERS, add_key

    folder = var.identity
    try:
        is_new = not (_holds_anything(var.kafka) or _holds_anything(var.store))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)  # a copied folder may be readable by others
        if var.keys_file.exists():
            key_file.complete(var.keys_file, LOCAL)
        with one_at_a_time(folder):
            key = _keep(folder / "api-key", key_file.new_key)
            if not var.keys_file.exists():
                key_file.make(var.keys_file, LOCAL, key.get_secret_value())
            _require_known(var.keys_file, key)
            session = _keep(folder / "session-secret", secrets.token_urlsafe)
            if pseudonyms and is_new:
                _keep(folder / "pseudonym-secret", secrets.token_urlsafe)
            public = folder / "signing-keys.json"
            signing: dict[str, SecretStr] = {
                name: _keep(folder / f"signing-key-{name}", partial(add_key, public, name))
                for name in SIGNERS
            }
            for path in folder.iterdir():
                path.chmod(0o600)
            pseudonym = _read(folder / "pseudonym-secret")
            return WheelSecrets(key, var.keys_file, session, pseudonym, signing, public)
    except OSError as error:
        raise SecretsUnusable(f"--var: {folder} cannot hold the wheel's secrets: {error}") from error


def rotate_local_key(var: Var, *, keep_old: bool) -> str:
    """Replace the wheel's own key and return the new one. If this is interrupted at any point, the file of
    keys still holds the hash of the key in the folder.

    Raises:
        InvalidKeys, KeyFileUnwritable, SecretsUnusable
    """
    key = key_file.rotate(var.keys_file, LOCAL, keep_old=True)
    keep_local_key(var, key)
    if not keep_old:
        key_file.revoke(var.keys_file, LOCAL, old_only=True)
    return key


def keep_local_key(var: Var, key: str) -> None:
    """Send ``key`` as the wheel's own from now on. Commands and programs that find the wheel by its folder
    read the key there, in the running wheel's context too.

    Raises:
        SecretsUnusable: the folder cannot be written.
    """
    try:
        replace_file(var.identity / "api-key", f"{key}\n".encode())
        if var.contexts.exists():
            contexts.change(lambda found: (_with_key(found, key), None), var.contexts)
    except (OSError, InvalidContexts) as error:
        raise SecretsUnusable(f"{var.identity / 'api-key'} cannot be written: {error}") from error


def _with_key(found: contexts.Contexts, key: str) -> contexts.Contexts:
    own = found.contexts.get(LOCAL)
    if own is None or own.key is None:  # the wheel asks nobody who calls, or asks for keys of another file
        return found
    changed = own.model_copy(update={"key": SecretStr(key)})
    return found.model_copy(update={"contexts": {**found.contexts, LOCAL: changed}})


def _keep(path: Path, make: Callable[[], str]) -> SecretStr:
    """Return the secret in ``path``; create it if there is none."""
    found = _read(path)
    if found is None:
        found = SecretStr(make())
        replace_file(path, f"{found.get_secret_value()}\n".encode())
    return found


def _holds_anything(folder: Path) -> bool:
    """An empty folder is no log and no store: commands that only look make one."""
    return folder.is_dir() and any(folder.iterdir())


def _read(path: Path) -> SecretStr | None:
    try:
        text = path.read_text("ascii").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise SecretsUnusable(f"{path} cannot be read: {error}") from error
    if not text:
        raise SecretsUnusable(f"{path} is empty; restore it, or delete it to have a new one made")
    return SecretStr(text)


def _require_known(path: Path, key: SecretStr) -> None:
    """Raise if the file of keys lacks the wheel's own key, without which the gateway could not use the
    engine."""
    from tunewheel_runtime.identity.keys import read_keys

    if read_keys(path).find(key.get_secret_value()) is None:
        raise SecretsUnusable(
            f"{path} lacks the wheel's own key, which lies in {path.parent / 'api-key'}; restore its entry "
            f"{LOCAL!r}, or delete both files to have new ones made"
        )
