"""What was judged of a model, held against the engine that is to serve it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.bundle import Bundle


class UnfitEngine(TunewheelError):
    """The engine serves another base, or in another precision, than was judged; the message says which."""


@dataclass(frozen=True, slots=True)
class EngineBase:
    """Revision and precision of a base, as the engine tells them; None: the engine does not tell."""

    revision: str | None = None
    precision: str | None = None


Bases = Mapping[str, EngineBase]
"""By name: the base models of which an engine says anything. vLLM says nothing of any."""


def bases_of(models: Iterable[Any]) -> dict[str, EngineBase]:
    """Read the entries of ``/v1/models``: ``tunewheel-engine`` tells ``revision`` and ``dtype``."""
    found = {
        str(model["id"]): EngineBase(_text(model.get("revision")), _text(model.get("dtype")))
        for model in models
        if isinstance(model, dict) and "id" in model
    }
    return {name: base for name, base in found.items() if base != EngineBase()}


def base_of_info(info: Mapping[str, Any]) -> dict[str, EngineBase]:
    """Read TGI's ``/info``: ``model_id``, ``model_sha`` and ``model_dtype`` (``torch.bfloat16``)."""
    precision = _text(info.get("model_dtype"))
    precision = precision.removeprefix("torch.") if precision else None
    base = EngineBase(_text(info.get("model_sha")), precision)
    return {str(info["model_id"]): base} if "model_id" in info and base != EngineBase() else {}


def check_engine(bundle: Bundle, bases: Bases) -> None:
    """Refuse an engine that says it serves anything else than was judged.

    Raises:
        UnfitEngine
    """
    name = bundle.base.name
    base = _said_of(name, bases)
    if base is None:
        raise UnfitEngine(
            f"was judged on {name}, and the engine serves {', '.join(sorted(bases))}; start an engine with "
            "that base"
        )
    if base.revision not in (None, bundle.base.revision):
        raise UnfitEngine(
            f"was judged on {name} at {bundle.base.revision}, and the engine serves {base.revision}; start "
            "it with that revision, or train again"
        )
    if base.precision not in (None, bundle.precision):
        raise UnfitEngine(
            f"was judged in {bundle.precision}, and the engine computes in {base.precision}; start it in "
            f"{bundle.precision}, or set eval to {base.precision} and train again"
        )


def unknown(bundle: Bundle, bases: Bases) -> list[str]:
    """Name what the engine does not say of what was judged."""
    base = _said_of(bundle.base.name, bases) or EngineBase()
    told = {"revision": base.revision, "precision": base.precision}
    return [name for name, value in told.items() if value is None]


def decoding_parameters(bundle: Bundle) -> dict[str, Any]:
    """Return how the next token was chosen, as parameters of OpenAI's API; what has no effect is left out,
    for engines that do not know it."""
    decoding = bundle.decoding
    parameters: dict[str, Any] = {"temperature": decoding.temperature}
    if decoding.top_p < 1:
        parameters["top_p"] = decoding.top_p
    if decoding.repetition_penalty != 1:
        parameters["repetition_penalty"] = decoding.repetition_penalty
    if decoding.seed is not None:
        parameters["seed"] = decoding.seed
    return parameters


def _said_of(name: str, bases: Bases) -> EngineBase | None:
    """Return what the engine says of the base ``name``; None: it serves another. The path of a directory, as
    which TGI names a base that it did not fetch, is no name: what lies there nobody can tell."""
    if name in bases or not bases:
        return bases.get(name, EngineBase())
    return next((said for path, said in bases.items() if path.startswith("/") and not said.revision), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
