"""context show."""

from __future__ import annotations

from tunewheel_cli.calling import Call, calling


@calling
def command(call: Call) -> None:
    """Show which wheel is meant here and now, and as whom you are known there. No key is shown."""
    from tunewheel_cli.texts import print_facts

    target = call.target
    found = target.context
    value = {
        "name": target.name, "url": found.url, "as": found.name, "project": found.project,
        "addresses": found.addresses.model_dump(),
        "login": "tokens" if found.tokens else "key" if found.key else None,
    }  # fmt: skip
    facts = [(name, one) for name, one in value.items() if name != "addresses"]
    call.show(value, lambda: print_facts([*facts, *value["addresses"].items()]))
