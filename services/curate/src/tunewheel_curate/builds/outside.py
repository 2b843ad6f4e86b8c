"""Pins the inputs of a build that are not on the log: the tokenizer and a teacher's answers.

The log fixes a build's records, but a hub or a teacher may give something else tomorrow. So the first attempt
at a build writes its inputs to ``builds/<build id>/inputs.json``. Every other attempt, on any replica, uses
the same ones. See docs/adr/0006-what-builds-take-from-outside.md.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import polars as pl
import structlog
from tunewheel_contracts.fields import ArtifactRef, Frozen, Sha256
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import TeacherUse, TokenizerUse
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import canonical_json, content_id
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.documents.examples import question_sections
from tunewheel_curate.documents.taught import note_sources
from tunewheel_curate.documents.teaching import ask_teacher, read_lessons
from tunewheel_curate.errors import SourceAway
from tunewheel_curate.examples.tokens import ModelTokens, Tokens, estimating
from tunewheel_curate.given import Outside

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


async def take_from_outside(
    store: ObjectStore,
    build_id: str,
    spec: ProjectSpec,
    documents: pl.DataFrame,
    *,
    allowed: AllowedSources,
    secret: str = "",
) -> Outside:
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
    data = await store.read(path)
    if data is not None:
        inputs = BuildInputs.model_validate_json(data)
    else:
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
        kept = await store.first(path, canonical_json(chosen.model_dump(mode="json")))
        inputs = BuildInputs.model_validate_json(kept)
    teacher = None
    if asks:
        assert questions.teacher is not None
        teacher = TeacherUse(
            model=questions.teacher.model, sections=len(sections), answered=len(inputs.lessons)
        )
    return Outside(
        tokens=await _tokens(store, spec.base_model, inputs.tokenizer),
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
    known = f"tokenizers/{content_id('tok', base_model)}.json"
    data = None if local else await store.read(known)
    if data is not None:
        return TokenizerChoice.model_validate_json(data)
    with tempfile.TemporaryDirectory(prefix="tunewheel-tokenizer-") as name:
        try:
            await asyncio.to_thread(save_tokenizer, base_model, Path(name))
        except ModelFilesError as error:
            log.warning("tokens_estimated", base_model=base_model, reason=error.reason)
            return TokenizerChoice()
        sha256 = sha256_directory(Path(name))
        files = await store.put_directory(f"tokenizers/{sha256}", Path(name))
    choice = TokenizerChoice(files=files, sha256=sha256)
    if local:
        return choice
    kept = await store.first(known, canonical_json(choice.model_dump(mode="json")))
    return TokenizerChoice.model_validate_json(kept)


async def _tokens(store: ObjectStore, base_model: str, choice: TokenizerChoice) -> Tokens:
    if choice.sha256 is None:
        return estimating(base_model, NOT_HERE)
    from tunewheel_basemodel.tokenizer import open_tokenizer

    with tempfile.TemporaryDirectory(prefix="tunewheel-tokenizer-") as name:
        files = await store.fetch_directory(choice.files, f"tokenizers/{choice.sha256}", Path(name) / "files")
        tokenizer = await asyncio.to_thread(open_tokenizer, files)
    return ModelTokens(TokenizerUse(base_model=base_model, sha256=choice.sha256), tokenizer)
