"""ask."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from tunewheel_cli.calling import Call, Project, calling


@calling
def command(
    call: Call,
    question: Annotated[str, typer.Argument(help="What to ask.")],
    project: Project,
    model: Annotated[
        str | None, typer.Option(help="A model id, or base; else what the project serves now.")
    ] = None,
    retrieval: Annotated[
        Literal["on", "off"] | None,
        typer.Option(help="With passages of documents or without.", show_default="as the spec says"),
    ] = None,
) -> None:
    """Ask a project's model through the gateway; the sources of its passages are named below the answer."""
    began = time.monotonic()
    answer = call.client.ask(project, question, model=model, retrieval=retrieval, temperature=0.0)
    seconds = round(time.monotonic() - began, 3)
    value = {"model": answer.model, "text": answer.text, "completion_id": answer.completion_id,
             "sources": answer.sources, "seconds": seconds, "refusal": answer.refusal,
             "confidence": answer.confidence}  # fmt: skip
    call.show(value, answer.refusal or answer.text)
    sure = "" if answer.confidence is None else f", confidence {answer.confidence:.2f}"
    call.tell(f"({answer.model}, {seconds:.1f} s{sure})")
    for source in answer.sources:
        call.tell(f"source: {source['document']}, {source['heading']} ({source['version']})")
