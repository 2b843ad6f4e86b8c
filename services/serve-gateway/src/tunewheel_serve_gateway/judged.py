"""What was judged of a model, held against the engine that is to serve it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.recipe import TrainMethod
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.run import AdapterRef

MODEL_SUFFIXES = frozenset({".safetensors", ".json", ".jinja", ".model", ".txt"})
"""Of the files that make a model, as ``tunewheel_basemodel.digest`` has them: the gateway needs no torch."""


class UnfitEngine(TunewheelError):
    """The engine serves another base, or in another precision, than was judged; the message says which."""


class NoEngine(TunewheelError):
    """No engine serves a whole model; the message says what to do."""


@dataclass(frozen=True, slots=True)
class EngineBase:
    """What an engine tells of a base. ``revision`` and ``precision`` None: it does not tell."""

    revision: str | None = None
    precision: str | None = None
    most_whole: int = 0
    """How many models with weights of their own it loads beside the base."""
    whole: frozenset[str] = frozenset()
    """The names of those that are loaded."""


Bases = Mapping[str, EngineBase]
"""By name: the base models of which an engine says anything. vLLM says nothing of any."""


def bases_of(models: Iterable[Any]) -> dict[str, EngineBase]:
    """Read the entries of ``/v1/models``: ``tunewheel-engine`` tells ``revision``, ``dtype`` and
    ``max_whole_models`` with the names of ``whole_models``."""
    found = {
        str(model["id"]): EngineBase(
            _text(model.get("revision")), _text(model.get("dtype")), *_whole_models(model)
        )
        for model in models
        if isinstance(model, dict) and "id" in model
    }
    return {name: base for name, base in found.items() if base != EngineBase()}


def base_of_info(info: Mapping[str, Any]) -> dict[str, EngineBase]:
    """Read TGI's ``/info``: ``model_id``, ``model_sha`` and ``model_dtype`` (``torch.bfloat16``); of
    ``tunewheel-engine`` also what ``bases_of`` reads."""
    precision = _text(info.get("model_dtype"))
    precision = precision.removeprefix("torch.") if precision else None
    base = EngineBase(_text(info.get("model_sha")), precision, *_whole_models(info))
    return {str(info["model_id"]): base} if "model_id" in info and base != EngineBase() else {}


def says_base(name: str, bases: Bases) -> bool | None:
    """Tell whether an engine serves the base ``name`` by its own word; None: it says nothing of any base."""
    return _said_of(name, bases) is not None if bases else None


def check_base(adapter: AdapterRef, bases: Bases) -> None:
    """Refuse an engine that says it serves another base than ``adapter`` was trained on.

    Raises:
        UnfitEngine
    """
    if says_base(adapter.base.name, bases) is False:
        raise UnfitEngine(
            f"was trained on {adapter.base.name}, and the engine serves {', '.join(sorted(bases))}; start an "
            "engine with that base"
        )


def most_whole(name: str, bases: Bases) -> int:
    """Return how many whole models an engine of the base ``name`` says that it loads beside it."""
    base = _said_of(name, bases)
    return base.most_whole if base is not None else 0


def check_takes(adapter: AdapterRef, bases: Bases) -> None:
    """Refuse an engine that loads no whole model, before the files of one are brought to it.

    Raises:
        NoEngine: somebody may start an engine on the model at any time.
    """
    if adapter.method is TrainMethod.FULL and not most_whole(adapter.base.name, bases):
        raise NoEngine(
            f"{adapter.model_id} is a whole model, which the engine does not load beside its base; start an "
            "engine with it as its base model, and name the engine in TUNEWHEEL_ENGINE_URL"
        )


def whole_model_name(adapter: AdapterRef, listed: Collection[str], bases: Bases) -> str | None:
    """Return the name under which an engine serves a fully trained model as its base: the model's id, the
    path of a directory of that name, or any name if its revision is the hash of the model's files."""
    if adapter.model_id in listed:
        return adapter.model_id
    revision = whole_model_revision(adapter) if bases else None
    for name, base in bases.items():
        if base.revision == revision or PurePosixPath(name).name == adapter.model_id:
            return name
    return None


def whole_model_revision(adapter: AdapterRef) -> str:
    """Return the revision that ``tunewheel-engine`` gives a directory of exactly these files."""
    whole = hashlib.sha256()
    files = {PurePosixPath(ref.path): ref.sha256 for ref in adapter.files}
    for path in sorted(files):
        if path.parent == PurePosixPath(adapter.path) and path.suffix in MODEL_SUFFIXES:
            whole.update(f"{path.name}\0{files[path]}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def check_engine(bundle: Bundle, bases: Bases, *, is_whole: bool = False) -> None:
    """Refuse an engine that says it serves anything else than was judged. ``is_whole``: it was started on the
    model itself, known by its id or files; then its base is no question.

    Raises:
        UnfitEngine
    """
    name = bundle.base.name
    base = next(iter(bases.values()), EngineBase()) if is_whole else _said_of(name, bases)
    if base is None:
        raise UnfitEngine(
            f"was judged on {name}, and the engine serves {', '.join(sorted(bases))}; start an engine with "
            "that base"
        )
    if not is_whole and base.revision not in (None, bundle.base.revision):
        raise UnfitEngine(
            f"was judged on {name} at {bundle.base.revision}, and the engine serves {base.revision}; start "
            "it with that revision, or train again"
        )
    if base.precision not in (None, bundle.precision):
        raise UnfitEngine(
            f"was judged in {bundle.precision}, and the engine computes in {base.precision}; start it in "
            f"{bundle.precision}, or set eval to {base.precision} and train again"
        )


def retrieves_as_judged(bundle: Bundle, retrieval: RetrievalSpec | None) -> bool:
    """Tell whether a request that does not say is given passages by the same configuration as the questions
    were by which the model was judged. ``retrieval``: of the project's present spec."""
    serves = retrieval.sha256 if retrieval is not None and retrieval.default == "on" else None
    return bundle.retrieval_sha256 == serves


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


def _whole_models(told: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
    most, names = told.get("max_whole_models"), told.get("whole_models")
    known = frozenset(str(name) for name in names) if isinstance(names, list) else frozenset[str]()
    return (most if isinstance(most, int) else 0), known


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
