"""key show."""

from __future__ import annotations

from tunewheel_cli.calling import Call, InvalidOption, calling


@calling
def command(call: Call) -> None:
    """Print the key that commands send to this wheel, for scripts."""
    from tunewheel_client import NoAddress
    from tunewheel_local.places import Var
    from tunewheel_local.wheel_secrets import local_key

    try:
        key = call.target.context.key
    except NoAddress:
        key = local_key(Var.at(call.var))  # of a wheel that does not run
    if key is None:
        raise InvalidOption(
            "--context: there is no key here; `tunewheel login URL` keeps one, `tunewheel up` makes its key"
        )
    call.show({"key": key.get_secret_value()}, key.get_secret_value())
