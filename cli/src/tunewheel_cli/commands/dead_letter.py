"""The commands about messages that services refused."""

from __future__ import annotations

from typing import Annotated

import typer

from tunewheel_cli.calling import Call, Limit, calling, named_project


@calling
def list_(
    call: Call,
    only: Annotated[
        str | None, typer.Option("--project", "-p", help="Only this project.", callback=named_project)
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Only what this topic brought.")] = None,
    limit: Limit = 50,
) -> None:
    """Show what services refused, one message after the other, with the field and the reason.

    Mend the message and publish it anew; or, if the reason is gone, `dead-letter again` with the name in
    brackets has it handled once more.
    """
    from tunewheel_cli.texts import flat

    found = call.client.dead_letters.list(project=only, topic=topic, limit=limit)

    def tell() -> None:
        for letter in found.items:
            verb = "crashed on" if letter.kind == "crashed" else "refused"
            asked = "; somebody asked for it again" if letter.again_at else ""
            print(f"{letter.topic}[{letter.partition}]@{letter.offset}  {letter.service} {verb} it{asked}")
            print(f"  {flat(letter.field)} {flat(letter.reason)}\n  ({letter.letter_id})")
        if not found.items:
            print("nothing was refused")

    call.show(found, tell)


@calling
def again(
    call: Call,
    letter: Annotated[str, typer.Argument(help="The name that `dead-letter list` prints in brackets.")],
    all_like_it: Annotated[
        bool, typer.Option("--all-like-it", help="Also those that were refused for the same reason.")
    ] = False,
) -> None:
    """Let a service handle a refused message once more.

    To ask twice is harmless: services know a message by its id.
    """
    done = call.client.dead_letters.again(letter, all_like_it=all_like_it)
    left = f"; {done.left} like it are left" if done.left else ""
    call.show(done, f"asked for {len(done.letters)} again{left}")
