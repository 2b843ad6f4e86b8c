from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.formats.example_formats import FormatsSpec, QuestionFormat, TeacherSpec

TEACHER = {"base_url": "http://teacher:8000/v1", "model": "some/teacher"}


def test_documents_give_no_examples_by_default() -> None:
    formats = FormatsSpec()
    assert not formats.documents.enabled
    assert FormatsSpec.model_validate({"documents": {"code": {"enabled": True}}}).documents.enabled


def test_a_teacher_can_be_named() -> None:
    asked = QuestionFormat.model_validate({"enabled": True, "method": "teacher", "teacher": TEACHER})
    assert asked.teacher is not None
    assert asked.when_unavailable == "extractive"


@pytest.mark.parametrize(
    ("formats", "field"),
    [
        ({"documents": {"questions": {"enabled": True, "method": "teacher"}}}, "documents.questions.teacher"),
        ({"documents": {"chunks": {"max_tokens": 100, "overlap": 51}}}, "documents.chunks.overlap"),
        ({"documents": {"chunks": {"max_tokens": 0}}}, "documents.chunks.max_tokens"),
        ({"documents": {"questions": {"per_section": 11}}}, "documents.questions.per_section"),
        ({"documents": {"chunk": {}}}, "documents.chunk"),
        ({"documents": {"system_prompt": ""}}, "documents.system_prompt"),
    ],
)
def test_an_invalid_field_is_named(formats: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        FormatsSpec.model_validate(formats)
    assert first_complaint(caught.value)[0] == field


@pytest.mark.parametrize(
    "changes",
    [
        {"base_url": "file:///etc/passwd"},
        {"base_url": "http://user:secret@host/v1"},
        {"api_key_env": "AWS_SECRET_ACCESS_KEY"},
        {"api_key_env": "TUNEWHEEL_STORE_URL"},
    ],
)
def test_a_teacher_gets_no_other_secret_and_no_other_scheme(changes: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        TeacherSpec.model_validate(TEACHER | changes)
    TeacherSpec.model_validate(TEACHER | {"api_key_env": "TUNEWHEEL_TEACHER_KEY"})
