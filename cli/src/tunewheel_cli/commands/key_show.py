"""key show."""

from __future__ import annotations

from tunewheel_cli.calling import Call, InvalidOption, calling


@calling
def command(call: Call) -> None:
    """Print the key that commands send to this wheel, for scripts."""
    key = call.target.context.key
    if key is None:
        raise InvalidOption("--context: has no key; log in with `tunewheel login URL --as NAME`")
    call.show({"key": key.get_secret_value()}, key.get_secret_value())
