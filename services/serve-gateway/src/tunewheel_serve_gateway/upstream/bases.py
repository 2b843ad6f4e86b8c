"""The base rule: a model is served by the base on which it was trained and judged, at the same revision and
in the same precision. What engines report about themselves decides which of them may load the model."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.run import AdapterRef

if TYPE_CHECKING:
    from tunewheel_serve_gateway.upstream.endpoint import Endpoint

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
    root: str | None = None
    """vLLM: the repository or directory from which the base was loaded, where its name is another
    (``--served-model-name``)."""
    is_any: bool = False
    """Whether the base's name does not tell which base it is. TGI reports the path of a directory from which
    it loaded the base, and cannot be given another name."""


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """The base models that an engine reports, by name. Empty: the engine reports none.

    An engine that reports bases is taken at its word: it serves these and no others.
    """

    bases: Mapping[str, EngineBase] = field(default_factory=dict[str, EngineBase])

    def name_of(self, base: str) -> str | None:
        """Return the name under which the engine reports that it serves ``base``; None: it does not. A
        directory counts as the base that has its name: ``/srv/models/Tiny`` as ``org/Tiny``."""
        if base in self.bases:
            return base
        return next(
            (name for name, said in self.bases.items() if _is(base, name) or _is(base, said.root)), None
        )

    def base(self, name: str) -> EngineBase | None:
        """Return what the engine reports about the base ``name``; None: it serves other bases."""
        if (at := self.name_of(name)) is not None:
            return self.bases[at]
        return next(
            (said for said in self.bases.values() if said.is_any), None if self.bases else EngineBase()
        )

    def check(self, adapter: AdapterRef, bundle: Bundle | None, *, is_whole: bool = False) -> None:
        """Refuse an engine that serves another base than ``adapter`` was trained on, or another revision or
        precision than ``bundle`` was judged with. ``bundle`` None: the model was not judged.

        ``is_whole``: the engine was started on the fully fine-tuned model itself; then only the precision is
        compared. Raises UnfitEngine.
        """
        name = adapter.base.name
        base = next(iter(self.bases.values()), EngineBase()) if is_whole else self.base(name)
        if base is None:
            raise UnfitEngine(
                f"was trained on {name}, and the engine serves {', '.join(sorted(self.bases))}; start an "
                f"engine with that base, or give the engine its name (vLLM: --served-model-name {name})"
            )
        if bundle is None:
            return
        if not is_whole and base.revision not in (None, bundle.base.revision):
            raise UnfitEngine(
                f"was judged on {name} at {bundle.base.revision}, and the engine serves {base.revision}; "
                "start it with that revision, or train again"
            )
        if base.precision not in (None, bundle.precision):
            raise UnfitEngine(
                f"was judged in {bundle.precision}, and the engine computes in {base.precision}; start it in "
                f"{bundle.precision}, or set eval to {base.precision} and train again"
            )

    def check_takes(self, adapter: AdapterRef) -> None:
        """Refuse an engine that cannot load a fully fine-tuned model, before the model's files are
        downloaded. Raises NoEngine: the refusal is not final, as an operator may start an engine on the model
        at any time."""
        if adapter.is_whole and not self.most_whole(adapter.base.name):
            raise NoEngine(
                f"{adapter.model_id} is a whole model, which the engine does not load beside its base; start "
                "an engine with it as its base model, and name the engine in TUNEWHEEL_ENGINE_URL"
            )

    def most_whole(self, name: str) -> int:
        """Return how many fully fine-tuned models the engine can load beside the base ``name``."""
        base = self.base(name)
        return base.most_whole if base is not None else 0

    def name_of_whole(self, adapter: AdapterRef, listed: Collection[str]) -> str | None:
        """Return the name under which the engine serves a fully fine-tuned model as its base; None: it does
        not. ``listed``: the names of its models.

        The name is the model's id, or the path of a directory called by the model's id. It is any name if its
        revision is the hash of the model's files. An engine of the model's base may have loaded the model
        beside that base, under its id: then the model is not its base.
        """
        if not adapter.is_whole or adapter.base.name in listed or self.name_of(adapter.base.name):
            return None
        if adapter.model_id in listed:
            return adapter.model_id
        revision = whole_model_revision(adapter) if self.bases else None
        for name, base in self.bases.items():
            if base.revision == revision or PurePosixPath(name).name == adapter.model_id:
                return name
        return None

    @property
    def whole(self) -> frozenset[str]:
        """The fully fine-tuned models that the engine reports as loaded beside its base."""
        return frozenset[str]().union(*(base.whole for base in self.bases.values()))

    @property
    def names(self) -> frozenset[str]:
        """The names of the bases, and those of the repositories from which the bases were loaded."""
        return frozenset({*self.bases, *(base.root for base in self.bases.values() if base.root)})

    def unknown(self, bundle: Bundle) -> list[str]:
        """Return which judged properties (revision, precision) the engine does not report."""
        base = self.base(bundle.base.name) or EngineBase()
        reported = {"revision": base.revision, "precision": base.precision}
        return [name for name, value in reported.items() if value is None]


def identity_of(models: Iterable[Any]) -> EngineIdentity:
    """Read the entries of ``/v1/models``. An entry with a ``parent`` is an adapter; any other is a base.

    vLLM reports ``root``. ``tunewheel-engine`` also reports ``revision``, ``dtype``, ``max_whole_models`` and
    the names in ``whole_models``.
    """
    return EngineIdentity(
        {
            str(model["id"]): EngineBase(
                _text(model.get("revision")),
                _text(model.get("dtype")),
                *_whole_models(model),
                root=_text(model.get("root")),
            )
            for model in models
            if isinstance(model, dict) and "id" in model and model.get("parent") is None
        }
    )


def identity_of_info(info: Mapping[str, Any]) -> EngineIdentity:
    """Read TGI's ``/info``: ``model_id``, ``model_sha`` and ``model_dtype`` (such as ``torch.bfloat16``).
    ``tunewheel-engine`` also reports the fields that ``identity_of`` reads."""
    name, revision = _text(info.get("model_id")), _text(info.get("model_sha"))
    precision = _text(info.get("model_dtype"))
    precision = precision.removeprefix("torch.") if precision else None
    if name is None:
        return EngineIdentity()
    is_any = name.startswith("/") and revision is None
    return EngineIdentity({name: EngineBase(revision, precision, *_whole_models(info), is_any=is_any)})


def whole_model_revision(adapter: AdapterRef) -> str:
    """Return the revision that ``tunewheel-engine`` gives a directory of exactly these files."""
    whole = hashlib.sha256()
    files = {PurePosixPath(ref.path): ref.sha256 for ref in adapter.files}
    for path in sorted(files):
        if path.parent == PurePosixPath(adapter.path) and path.suffix in MODEL_SUFFIXES:
            whole.update(f"{path.name}\0{files[path]}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def homes(engines: Sequence[Endpoint], adapter: AdapterRef) -> list[Endpoint]:
    """Return the ones of ``engines`` that should load ``adapter``: engines of the adapter's base.

    A fully fine-tuned model is loaded by the engines that were started on it, once one of them serves it;
    until then, and while none is up, also by those of its base that load whole models. Where no engine
    fits, though all were heard of, those that do not fit are returned: each will say why.
    """
    base = adapter.base.name
    own = [e for e in engines if e.name_of_whole(adapter) is not None]
    if any(adapter.model_id in e.ready and not e.breaker.is_open for e in own):
        return own
    based = of_base(engines, base)
    found = own + [e for e in based if not adapter.is_whole or e.identity.most_whole(base)]
    if found or not all(e.is_known for e in engines):
        return found
    return based or list(engines)


def of_base(engines: Sequence[Endpoint], base: str) -> list[Endpoint]:
    """Return the ones of ``engines`` that report ``base``. If none does, return the engines that report no
    base at all: an engine that was never heard of may turn out to have ``base``."""
    found = [e for e in engines if e.identity.base(base) is not None]
    if by_word := [e for e in found if e.identity.bases]:
        return by_word
    # One that is found behind a name holds nobody up: it may have come a moment ago.
    some_unknown = len(engines) > 1 and not all(e.is_known or e.was_found for e in engines)
    return [] if some_unknown else found


def have_one_base(one: Endpoint, other: Endpoint) -> bool:
    """Tell whether two engines serve one base, as far as they report."""
    ours, theirs = one.identity.names, other.identity.names
    return not ours or not theirs or bool(ours & theirs)


def _whole_models(reported: Mapping[str, Any]) -> tuple[int, frozenset[str]]:
    most, names = reported.get("max_whole_models"), reported.get("whole_models")
    loaded = frozenset(str(name) for name in names) if isinstance(names, list) else frozenset[str]()
    return (most if isinstance(most, int) else 0), loaded


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _is(base: str, named: str | None) -> bool:
    """Tell whether ``named``, a repository or the path of a directory, is ``base``."""
    if named is None or not named.startswith("/"):
        return named == base
    return PurePosixPath(named).name == PurePosixPath(base).name
