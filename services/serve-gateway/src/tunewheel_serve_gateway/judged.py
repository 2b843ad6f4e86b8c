"""Checks that an engine serves a model as it was judged: same base model, same revision, same precision."""

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
"""Suffixes of the files that make up a model. ``tunewheel_basemodel.digest`` has the same list, but the
gateway does not import that package, because it needs no torch."""


class UnfitEngine(TunewheelError):
    """The engine serves another base model, revision or precision than was judged; the message names it."""


class NoEngine(TunewheelError):
    """No engine serves the fully fine-tuned model; the message says what to do."""


@dataclass(frozen=True, slots=True)
class EngineBase:
    """What an engine reports about a base model. None: the engine does not report the field."""

    revision: str | None = None
    precision: str | None = None
    most_whole: int = 0
    """How many fully fine-tuned models the engine can load beside the base."""
    whole: frozenset[str] = frozenset()
    """The names of the fully fine-tuned models that are loaded."""


Bases = Mapping[str, EngineBase]
"""The base models that an engine reports, by name. vLLM reports none."""


def bases_of(models: Iterable[Any]) -> dict[str, EngineBase]:
    """Read the entries of ``/v1/models``. ``tunewheel-engine`` reports ``revision``, ``dtype``,
    ``max_whole_models`` and the names in ``whole_models``."""
    found = {
        str(model["id"]): EngineBase(
            _text(model.get("revision")), _text(model.get("dtype")), *_whole_models(model)
        )
        for model in models
        if isinstance(model, dict) and "id" in model
    }
    return {name: base for name, base in found.items() if base != EngineBase()}


def base_of_info(info: Mapping[str, Any]) -> dict[str, EngineBase]:
    """Read TGI's ``/info``: ``model_id``, ``model_sha`` and ``model_dtype`` (such as ``torch.bfloat16``).
    ``tunewheel-engine`` also reports the fields that ``bases_of`` reads."""
    precision = _text(info.get("model_dtype"))
    precision = precision.removeprefix("torch.") if precision else None
    base = EngineBase(_text(info.get("model_sha")), precision, *_whole_models(info))
    return {str(info["model_id"]): base} if "model_id" in info and base != EngineBase() else {}


def says_base(name: str, bases: Bases) -> bool | None:
    """Return whether an engine reports that it serves the base ``name``; None: it reports no base."""
    return _said_of(name, bases) is not None if bases else None


def check_base(adapter: AdapterRef, bases: Bases) -> None:
    """Refuse an engine that reports another base than the one that ``adapter`` was trained on.

    Raises:
        UnfitEngine
    """
    if says_base(adapter.base.name, bases) is False:
        raise UnfitEngine(
            f"was trained on {adapter.base.name}, and the engine serves {', '.join(sorted(bases))}; start an "
            "engine with that base"
        )


def most_whole(name: str, bases: Bases) -> int:
    """Return how many fully fine-tuned models the engine can load beside the base ``name``."""
    base = _said_of(name, bases)
    return base.most_whole if base is not None else 0


def check_takes(adapter: AdapterRef, bases: Bases) -> None:
    """Refuse an engine that cannot load a fully fine-tuned model, before the model's files are downloaded.

    Raises:
        NoEngine: the refusal is not final, as an operator may start an engine on the model at any time.
    """
    if adapter.method is TrainMethod.FULL and not most_whole(adapter.base.name, bases):
        raise NoEngine(
            f"{adapter.model_id} is a whole model, which the engine does not load beside its base; start an "
            "engine with it as its base model, and name the engine in TUNEWHEEL_ENGINE_URL"
        )


def whole_model_name(adapter: AdapterRef, listed: Collection[str], bases: Bases) -> str | None:
    """Return the name under which an engine serves a fully fine-tuned model as its base; None: it does not.

    The name is the model's id, or the path of a directory called by the model's id. It is any name if its
    revision is the hash of the model's files.
    """
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
    """Refuse an engine that reports another base, revision or precision than was judged.

    ``is_whole``: the engine was started on the fully fine-tuned model itself; then only the precision is
    compared.

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
    """Return whether requests get passages by the same retrieval spec with which the model was judged.
    ``retrieval``: the project's present retrieval spec. Requests that set ``retrieval`` are not
    considered."""
    serves = retrieval.sha256 if retrieval is not None and retrieval.default == "on" else None
    return bundle.retrieval_sha256 == serves


def unknown(bundle: Bundle, bases: Bases) -> list[str]:
    """Return which judged properties (revision, precision) the engine does not report."""
    base = _said_of(bundle.base.name, bases) or EngineBase()
    reported = {"revision": base.revision, "precision": base.precision}
    return [name for name, value in reported.items() if value is None]


def decoding_parameters(bundle: Bundle) -> dict[str, Any]:
    """Return the decoding settings with which the model was judged, as parameters of OpenAI's API. Settings
    without effect are left out, since not every engine accepts them."""
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
    """Return what the engine reports about the base ``name``; None: it serves another base.

    TGI reports the path of a directory for a base that it loaded from there. Which base the directory holds
    is unknown, so the path is accepted for any ``name``.
    """
    if name in bases or not bases:
        return bases.get(name, EngineBase())
    return next((said for path, said in bases.items() if path.startswith("/") and not said.revision), None)


def _whole_models(reported: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
    most, names = reported.get("max_whole_models"), reported.get("whole_models")
    loaded = frozenset(str(name) for name in names) if isinstance(names, list) else frozenset[str]()
    return (most if isinstance(most, int) else 0), loaded


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
