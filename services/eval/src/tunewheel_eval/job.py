"""The job of the measuring process, and the messages that it sends back."""

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
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_retrieval.hits import Hit

UNFIT_EXIT = 3
"""Exit status of a worker that cannot measure the candidate. Its last line says why."""

UNREACHABLE_EXIT = 4
"""Exit status of a worker whose base model cannot be downloaded at the moment."""


class ContestantJob(Frozen):
    """One contestant: the base (no ``directory``), an adapter on it, or a whole model of its own."""

    role: Role
    model_key: str
    base: BaseModelRef
    quantization: Literal["nf4"] | None = None
    directory: Path | None = None
    whole_model: bool = False
    rows: Path
    """The file for its rows. Rows that are in the file are not measured again."""
    constraint: JsonObject | None = None
    """The JSON Schema that constrains its answers to held-out prompts."""
    cut_at: str = ""
    """A regular expression. An answer to a held-out prompt ends once its beginning matches."""
    seeds: tuple[Path, ...] = ()
    """Measurements of the same contestant on other datasets. Rows of the same items are copied from them."""


class LmEvalJob(Frozen):
    """A task of lm-evaluation-harness."""

    name: str
    place: str
    """Its path in the project's spec."""
    config: JsonObject
    """Its YAML, without the location of its data."""
    data: dict[str, Path]
    """JSON Lines by split."""
    keys: Annotated[tuple[str, ...], Field(min_length=1)]
    """The keys of its questions' rows, in order."""
    chat_template: bool = False


class WithPassages(Frozen):
    """A held-out question whose prompt has passages."""

    example: ChatExample
    """The example as in its dataset."""
    hits: tuple[Hit, ...]
    """The hits whose passages are in the prompt. If a model's context is too small, the last ones are left
    out."""


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
    """How answers to the held-out prompts are decoded."""
    repeats: dict[str, tuple[str, int]] = {}
    """The prompts that the candidate answers again: key of the new row → (key of the example, repeat
    number)."""
    other_mode: dict[str, tuple[str, int]] = {}
    """The prompts that the candidate answers again in the other mode, in the form of ``repeats``."""
    other_constraint: JsonObject | None = None
    """The JSON Schema that constrains these answers."""
    others: tuple[ChatExample, ...] = ()
    """Further prompts for base and candidate: with passages if ``examples`` have none, otherwise without."""
    prompted: tuple[ChatExample, ...] = ()
    """Further prompts for the base: ``examples`` with the best prompt of the project."""
    retrieval: RetrievalSpec | None = None
    with_passages: dict[Sha256, WithPassages] = {}
    """By the key of the prompt with all its passages. ``retrieval`` says how passages are written into a
    prompt."""
    task: TaskSpec | None = None
    """The candidate's confidence in its labels is measured by it. None: an earlier release wrote the job."""
    batch_size: Annotated[int, Field(gt=0)] = 32
    threads: Annotated[int, Field(ge=0)] = 0


class Progress(Frozen):
    """A line of the worker's standard output."""

    line: Literal["progress"] = "progress"
    role: Role
    done: int
    total: int
    """The number of this contestant's items, of all kinds."""
    seconds: float


class Unfit(Frozen):
    """The worker's last line if the candidate cannot be measured."""

    line: Literal["unfit"] = "unfit"
    field: str
    reason: str


class Broken(Frozen):
    """The worker's last line if it fails for any other reason."""

    line: Literal["broken"] = "broken"
    reason: str


WorkerLine = Annotated[Progress | Unfit | Broken, Field(discriminator="line")]
