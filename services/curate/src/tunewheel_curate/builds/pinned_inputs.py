"""Pins the inputs of a build that are not on the log: the tokenizer, a teacher's answers, general data, and
the held-out rows whose use is over.

The log fixes a build's records, but a hub, a teacher or a source of general data may give something else
tomorrow, and eval counts the uses of a row in the store. So the first attempt at a build writes its inputs
to ``builds/<build id>/``. Every other attempt, on any replica, uses the same ones. See
docs/adr/0006-what-builds-take-from-outside.md.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import polars as pl
import structlog
from pydantic import ValidationError
from tunewheel_contracts.fields import ArtifactRef, Frozen, Sha256
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import ChatExample, TeacherUse, TokenizerUse
from tunewheel_contracts.formats.dataset_spec import ReplaySpec
from tunewheel_contracts.formats.look import Look, Spending, look_path, looks_folder, row_name
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import canonical_json, content_id, content_sha256
from tunewheel_runtime.store import CorruptArtifact, ObjectStore

from tunewheel_curate.documents.examples import question_sections
from tunewheel_curate.documents.teaching import ask_teacher, note_sources, read_lessons
from tunewheel_curate.errors import SourceAway
from tunewheel_curate.examples.tokens import ModelTokens, Tokens, estimating
from tunewheel_curate.inputs import Pinned
from tunewheel_curate.replay.mixing import ReplayPool
from tunewheel_curate.replay.sources import read_replay

log = structlog.get_logger(__name__)

NOT_HERE = "its tokenizer was not to be had where this version was built"


class TokenizerChoice(Frozen):
    """The files of a tokenizer in the store. Without files, token counts are estimated."""

    files: tuple[ArtifactRef, ...] = ()
    sha256: Sha256 | None = None


class BuildInputs(Frozen):
    """The content of ``builds/<build id>/inputs.json``."""

    tokenizer: TokenizerChoice = TokenizerChoice()
    lessons: tuple[Sha256, ...] = ()
    """The keys (``section_key``) of the teacher's answers that the build uses."""


async def pin_inputs(
    store: ObjectStore,
    build_id: str,
    spec: ProjectSpec,
    documents: pl.DataFrame,
    *,
    allowed: AllowedSources,
    secret: str = "",
) -> Pinned:
    """Return the pinned inputs of the build ``build_id``. The first attempt chooses and pins them.

    ``secret`` keys the pseudonyms. It is stored nowhere, so every machine that builds needs the same one.

    Raises:
        TransientError: the store is away.
        SourceAway: the teacher does not answer, and the spec says to wait.
        InvalidSpec: see ``question_sections``; or ``allowed`` does not list the teacher.
    """
    questions = spec.dataset.formats.documents.questions
    asks = questions.enabled and questions.method == "teacher" and questions.teacher is not None
    sections = question_sections(documents, spec, secret=secret) if asks else {}
    path = f"builds/{build_id}/inputs.json"
    inputs = await store.document(path, BuildInputs)
    if inputs is None:
        if questions.teacher is not None and asks:
            allowed.check_teacher(questions.teacher)
        await note_sources(store, spec.project, sections)
        lessons = await ask_teacher(store, sections, questions) if sections else {}
        if len(lessons) < len(sections) and questions.when_unavailable == "wait":
            raise SourceAway(
                f"the teacher answered for {len(lessons)} of {len(sections)} sections; restore the teacher, "
                "or set dataset.formats.documents.questions.when_unavailable to extractive"
            )
        chosen = BuildInputs(
            tokenizer=await choose_tokenizer(store, spec.base_model), lessons=tuple(sorted(lessons))
        )
        inputs = await store.first_document(path, chosen)
    teacher = None
    if asks:
        assert questions.teacher is not None
        teacher = TeacherUse(
            model=questions.teacher.model, sections=len(sections), answered=len(inputs.lessons)
        )
    return Pinned(
        tokens=await _tokens(store, spec, inputs.tokenizer),
        lessons=await read_lessons(store, inputs.lessons),
        teacher=teacher,
        secret=secret,
    )


async def choose_tokenizer(store: ObjectStore, base_model: str) -> TokenizerChoice:
    """Return the tokenizer of ``base_model``. The first tokenizer found for a model id is kept in the store.

    A local directory is read each time, because its content may change.
    """
    from tunewheel_basemodel.digest import sha256_directory
    from tunewheel_basemodel.errors import ModelFilesError
    from tunewheel_basemodel.tokenizer import save_tokenizer

    local = Path(base_model).is_absolute()
    place = f"tokenizers/{content_id('tok', base_model)}.json"
    if not local and (kept := await store.document(place, TokenizerChoice)) is not None:
        return kept
    with tempfile.TemporaryDirectory(prefix="tunewheel-tokenizer-") as name:
        try:
            await asyncio.to_thread(save_tokenizer, base_model, Path(name))
        except ModelFilesError as error:
            log.warning("tokens_estimated", base_model=base_model, reason=error.reason)
            return TokenizerChoice()
        sha256 = sha256_directory(Path(name))
        files = await store.put_directory(f"tokenizers/{sha256}", Path(name))
    choice = TokenizerChoice(files=files, sha256=sha256)
    return choice if local else await store.first_document(place, choice)


async def _tokens(store: ObjectStore, spec: ProjectSpec, choice: TokenizerChoice) -> Tokens:
    if choice.sha256 is None:
        return estimating(spec.base_model, NOT_HERE)
    from tunewheel_basemodel.chat import with_variables
    from tunewheel_basemodel.tokenizer import open_tokenizer

    with tempfile.TemporaryDirectory(prefix="tunewheel-tokenizer-") as name:
        files = await store.fetch_directory(choice.files, f"tokenizers/{choice.sha256}", Path(name) / "files")
        tokenizer = await asyncio.to_thread(open_tokenizer, files)
    use = TokenizerUse(base_model=spec.base_model, sha256=choice.sha256)
    return ModelTokens(use, with_variables(tokenizer, spec.task.chat_template_kwargs))


class ReplayPin(Frozen):
    """``builds/<build id>/replay.json``: a build uses the conversations at ``replay/<sha256>.jsonl``."""

    sha256: Sha256


async def pinned_replay(
    store: ObjectStore, build_id: str, spec: ReplaySpec, allowed: AllowedSources
) -> ReplayPool:
    """Return the conversations for the build ``build_id``. The first attempt reads the source and keeps them;
    every other attempt uses the kept ones.

    Raises:
        InvalidSpec, SourceAway: see ``read_replay``.
        CorruptArtifact: what was kept is damaged or gone.
    """
    path = f"builds/{build_id}/replay.json"
    if (kept := await store.document(path, ReplayPin)) is not None:
        return await _kept(store, kept)
    pool = await asyncio.to_thread(read_replay, spec, allowed)
    lines = b"".join(canonical_json(turns) + b"\n" for turns in pool.conversations)
    await store.put(_path(pool.sha256), lines)
    pin = await store.first_document(path, ReplayPin(sha256=pool.sha256))
    # Another attempt may have read the source before it changed.
    return pool if pin.sha256 == pool.sha256 else await _kept(store, pin)


async def _kept(store: ObjectStore, pin: ReplayPin) -> ReplayPool:
    data = await store.read(_path(pin.sha256)) or b""
    if content_sha256(data) != pin.sha256:
        raise CorruptArtifact(f"{_path(pin.sha256)} does not hold what its name says; bring it back")
    return ReplayPool(tuple(json.loads(line) for line in data.split(b"\n") if line), pin.sha256)


def _path(sha256: str) -> str:
    return f"replay/{sha256}.jsonl"


class Retired(Frozen):
    """The content of ``builds/<build id>/retired.json``. Earlier releases kept a list of groups."""

    groups: tuple[str, ...] = ()
    """Pseudonyms of whole groups that rest."""
    rows: tuple[str, ...] = ()
    """The rows that rest, by ``row_name``."""
    counted: int = 0
    """The number of looks at rows that this and earlier builds counted."""


async def pinned_retired(
    store: ObjectStore, build_id: str, spec: ProjectSpec, *, previous: str | None
) -> tuple[tuple[str, ...], list[ChatExample]]:
    """Return the groups (pseudonyms) and the held-out rows of the version ``previous`` that the build
    ``build_id`` retires. No verdict uses a retired row, and nothing trains on it. Eval learns this from a
    look that spends all.

    Raises:
        TransientError: the store is away.
    """
    path = f"builds/{build_id}/retired.json"
    if (pinned := await store.read(path)) is None:
        looks = [await _read(store, name) for name in await store.list(looks_folder(spec.project))]
        holdout = await _held_out(store, previous) if looks else []
        chosen = choose_retired([look for look in looks if look is not None], holdout, spec)
        pinned = await store.first(path, canonical_json(chosen.model_dump(mode="json")))
    found = json.loads(pinned)
    retired = Retired(groups=tuple(found)) if isinstance(found, list) else Retired.model_validate(found)
    if not retired.rows:
        return retired.groups, []
    note = Look(
        project=spec.project, scorecard_id=build_id, rows=retired.rows, looks=1, of=1, counted=retired.counted
    )
    await store.first(look_path(spec.project, build_id), note.model_dump_json().encode())
    return retired.groups, [one for one in await _held_out(store, previous) if row_name(one) in retired.rows]


async def _held_out(store: ObjectStore, dataset_id: str | None) -> list[ChatExample]:
    """Return the held-out rows of a version; none where its rows were erased."""
    data = await store.read(f"datasets/{dataset_id}/holdout.parquet") if dataset_id else None
    rows = [] if data is None else pl.read_parquet(BytesIO(data)).to_dicts()
    return [ChatExample.model_validate(row) for row in rows]


def choose_retired(looks: Sequence[Look], holdout: Sequence[ChatExample], spec: ProjectSpec) -> Retired:
    """Return the rows of ``holdout`` to retire: those that have spent all, and of the others that were looked
    at the most used, ``1/evaluation.looks`` of the rows for each verdict that no build has counted yet.

    So rows leave one after the other, and with one verdict a version each serves about as many verdicts as
    the spec allows. Verdicts for less than a row are left to the next build.
    """
    spending, verdicts = Spending(), [look for look in looks if look.rows and look.counted is None]
    for look in looks:
        spending.add(look)
    counted = max((look.counted or 0 for look in looks), default=0)
    used = sorted(
        (one for one in holdout if spending.of(one)),
        key=lambda one: (-round(spending.of(one), 9), content_sha256([spec.project, row_name(one)])),
    )
    over = sum(not spending.allows(one, 1 / spec.evaluation.looks) for one in used)
    due = (len(verdicts) - counted) * len(used) // spec.evaluation.looks
    rest = used[: max(over, due)]
    return Retired(
        rows=tuple(sorted({row_name(one) for one in rest})), counted=len(verdicts) if due else counted
    )


async def _read(store: ObjectStore, path: str) -> Look | None:
    try:
        return Look.model_validate_json(await store.read(path) or b"")
    except ValidationError:  # a damaged file is no look
        return None
