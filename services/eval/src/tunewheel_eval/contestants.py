"""The models of one evaluation: each base is loaded once, adapters are switched on it."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.formats.scorecard import Role

from tunewheel_eval.errors import UnfitCandidate, UnusableContestant
from tunewheel_eval.job import ContestantJob

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from tunewheel_basemodel.locate import BaseModel

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


class LoadedGroup:
    """Contestants that share one loaded model."""

    def __init__(self, group: Sequence[ContestantJob], *, cache_dir: Path, dtype: str) -> None:
        """Load the model and every adapter of ``group``.

        Raises:
            UnfitCandidate: the candidate's files or its base do not load.
            UnusableContestant: another contestant's files do not load.
            BaseModelUnreachable: the hub does not answer, for which no candidate is refused.
        """
        from tunewheel_basemodel.errors import BaseModelUnreachable, ModelFilesError

        self._peft: Any = None
        candidate = next((job for job in group if job.role is Role.CANDIDATE), None)
        try:
            base = _located(group[0], cache_dir)
            self._model, self.tokenizer = _loaded(base, group[0].quantization, dtype)
            self._load_adapters(group)
        except ModelFilesError as error:
            if isinstance(error, BaseModelUnreachable):
                raise
            if candidate is None:
                roles = " and the ".join(job.role.value for job in group)
                raise UnusableContestant(f"the {roles} cannot be loaded: {error}") from error
            raise UnfitCandidate(field=error.field, reason=error.reason) from error

    @contextmanager
    def playing(self, contestant: ContestantJob) -> Iterator[PreTrainedModel]:
        """Give the model with this contestant's weights, for as long as the block lasts."""
        if self._peft is None:
            yield self._model
            return
        as_base = contestant.directory is None
        if not as_base:
            self._peft.set_adapter(contestant.role.value, inference_mode=True)
        with self._peft.disable_adapter() if as_base else nullcontext():
            yield self._peft.get_base_model()

    def close(self) -> None:
        """Drop the weights before the next group's are loaded."""
        del self._peft, self._model
        gc.collect()

    def _load_adapters(self, group: Sequence[ContestantJob]) -> None:
        from tunewheel_basemodel.errors import InvalidAdapter
        from tunewheel_basemodel.loading import load_adapter

        model: Any = self._model
        for job in group:
            if job.directory is None or job.whole_model:
                continue
            try:
                model = self._peft = load_adapter(model, job.directory, job.role.value)
            except InvalidAdapter as error:
                if job.role is not Role.CANDIDATE:
                    raise UnusableContestant(
                        f"the {job.role.value}'s adapter does not load: {error}"
                    ) from error
                raise


def groups(contestants: Sequence[ContestantJob]) -> list[list[ContestantJob]]:
    """Contestants by the model that they share, in order of first appearance."""
    found: dict[tuple[object, ...], list[ContestantJob]] = {}
    for job in contestants:
        own = job.directory if job.whole_model else None
        found.setdefault((job.base.name, job.base.revision, job.quantization, own), []).append(job)
    return list(found.values())


def _located(job: ContestantJob, cache_dir: Path) -> BaseModel:
    from tunewheel_basemodel.locate import BaseModel, locate_base_model

    base = locate_base_model(job.base.name, cache_dir=cache_dir, revision=job.base.revision)
    if not job.whole_model or job.directory is None:
        return base
    _lend_tokenizer(base.path, job.directory)
    return BaseModel(name=job.base.name, path=job.directory, revision=job.base.revision)


def _lend_tokenizer(source: Path, directory: Path) -> None:
    """A whole model saved without its tokenizer is read with its base's."""
    if any((directory / name).is_file() for name in _TOKENIZER_FILES):
        return
    for pattern in ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "chat_template*"):
        for file in source.glob(pattern):
            (directory / file.name).symlink_to(file)


def _loaded(
    base: BaseModel, quantization: Any, dtype: str
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    from tunewheel_basemodel.loading import load_base

    return load_base(base, dtype=dtype, quantization=quantization)  # type: ignore[arg-type]
