"""What the measuring process is told, and what it says: both sides of the pipe, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from tunewheel_contracts.fields import Frozen, JsonObject, Sha256
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.regression_items import RegressionItem
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_retrieval.hits import Hit

UNFIT_EXIT = 3
"""Exit status of a worker that found the candidate unfit; its last line says why."""

UNREACHABLE_EXIT = 4
"""Exit status of a worker whose base model cannot be fetched at the moment."""


class ContestantJob(Frozen):
    """One contestant: the base (no ``directory``), an adapter on it, or a whole model of its own."""

    role: Role
    model_key: str
    base: BaseModelRef
    quantization: Literal["nf4"] | None = None
    directory: Path | None = None
    whole_model: bool = False
    rows: Path
    """Where its rows go; rows that are there already are not measured again."""
    seeds: tuple[Path, ...] = ()
    """Measurements of the same contestant on other datasets: rows of equal items are taken over."""


class LmEvalJob(Frozen):
    """A task of lm-evaluation-harness."""

    name: str
    place: str
    """Its path in the project's spec."""
    config: JsonObject
    """Its YAML, without what says where its data lies."""
    data: dict[str, Path]
    """JSON Lines by split."""
    keys: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of its questions' rows, in order."""
    chat_template: bool = False


class WithPassages(Frozen):
    """A held-out question whose prompt has passages."""

    example: ChatExample
    """As its dataset has it."""
    hits: tuple[Hit, ...]
    """Whose passages it is asked with; where a model's context does not hold all, the last are left out."""


class Job(Frozen):
    """``job.json``: everything the worker needs; paths are this machine's."""

    contestants: Annotated[tuple[ContestantJob, ...], Field(min_length=1)]
    examples: Annotated[tuple[ChatExample, ...], Field(min_length=1)]
    items: tuple[RegressionItem, ...]
    lm_eval: tuple[LmEvalJob, ...] = ()
    max_output_tokens: Annotated[int, Field(gt=0)]
    cache_dir: Path
    dtype: Literal["float32", "bfloat16"] = "float32"
    decoding: Decoding = Decoding()
    """How answers to the held-out prompts are written."""
    repeats: dict[str, tuple[str, int]] = {}
    """What the candidate answers again: the new row's key → (key of the example, number of the repeat)."""
    others: tuple[ChatExample, ...] = ()
    """What base and candidate are asked as well: with passages where ``examples`` have none, or without."""
    retrieval: RetrievalSpec | None = None
    with_passages: dict[Sha256, WithPassages] = {}
    """By the key of the prompt with all its passages; ``retrieval`` says how they stand there."""
    batch_size: Annotated[int, Field(gt=0)] = 32
    threads: Annotated[int, Field(ge=0)] = 0


class Progress(Frozen):
    """A line of the worker's standard output."""

    line: Literal["progress"] = "progress"
    role: Role
    done: int
    total: int
    """Items of this contestant, whatever they are."""
    seconds: float


class Unfit(Frozen):
    """The worker's last line where the candidate cannot be measured."""

    line: Literal["unfit"] = "unfit"
    field: str
    reason: str


class Broken(Frozen):
    """The worker's last line where it ends for any other reason."""

    line: Literal["broken"] = "broken"
    reason: str


WorkerLine = Annotated[Progress | Unfit | Broken, Field(discriminator="line")]
