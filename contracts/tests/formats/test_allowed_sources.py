"""Who may be asked, who gets which key, what may be read: the lists decide, whatever a spec says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.formats.spec import EvaluationSpec, ProjectSpec, ServingSpec

KEY = "TUNEWHEEL_TEACHER_KEY"


def spec(
    *, teacher: dict[str, Any] | None = None, source: str | None = None, **questions: Any
) -> ProjectSpec:
    asked = {"enabled": True, "method": "teacher", "teacher": {"model": "m"} | (teacher or {})} | questions
    return ProjectSpec.model_validate(
        {
            "project": "shop",
            "base_model": "some/model",
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "perplexity", "maximum": 9}],
            "dataset": {
                "formats": {"documents": {"questions": asked if teacher else {}}},
                "replay": {"source": source} if source else None,
            },
        }
    )


@pytest.mark.parametrize(
    ("url", "key", "field"),
    [
        ("https://teacher.example:8000/v1", None, None),
        ("https://teacher.example:8000/v1", KEY, None),
        ("http://[::1]:8000/v1", None, None),
        ("https://eu.api.example/v1", "TUNEWHEEL_TEACHER_OTHER", None),
        ("https://eu.api.example/v1", KEY, "api_key_env"),
        ("https://teacher.example/v1", None, "base_url"),
        ("https://elsewhere.example/v1", KEY, "base_url"),
        ("https://notapi.example/v1", None, "base_url"),
        ("https://evil.example\\.api.example/v1", None, "base_url"),
        ("https://api.example:port/v1", None, "base_url"),
        ("https://[api.example/v1", None, "base_url"),
        ("http://169.254.169.254/v1", None, "base_url"),
    ],
)
def test_a_key_goes_to_the_hosts_it_is_listed_for(url: str, key: str | None, field: str | None) -> None:
    hosts = f"teacher.example:8000, teacher.example:8000={KEY},api.example=TUNEWHEEL_TEACHER_OTHER,[::1]"
    asked = spec(teacher={"base_url": url, "api_key_env": key})
    if field is None:
        AllowedSources(hosts=hosts).check(asked)
        return
    with pytest.raises(InvalidSpec, match=r"TUNEWHEEL_SPEC_HOSTS|is not a URL") as refused:
        AllowedSources(hosts=hosts).check(asked)
    assert refused.value.field == f"dataset.formats.documents.questions.teacher.{field}"


def assert_checked(allowed: AllowedSources, asked: ProjectSpec, field: str | None) -> None:
    """Assert that the spec is refused with ``field``; None: that it is allowed."""
    if field is None:
        allowed.check(asked)
        return
    with pytest.raises(InvalidSpec, match="TUNEWHEEL_SPEC_HOSTS") as refused:
        allowed.check(asked)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("url", "key", "field"),
    [
        ("https://vectors.example/v1", None, None),
        ("https://vectors.example/v1", "TUNEWHEEL_EMBEDDING_KEY", None),
        ("https://vectors.example/v1", "TUNEWHEEL_EMBEDDING_OTHER", "api_key_env"),
        ("https://elsewhere.example/v1", None, "base_url"),
    ],
)
def test_an_endpoint_of_embeddings_is_held_to_the_same_list(
    url: str, key: str | None, field: str | None
) -> None:
    embedding = {"kind": "endpoint", "base_url": url, "model": "m", "api_key_env": key, "dimensions": 8}
    allowed = AllowedSources(hosts="vectors.example=TUNEWHEEL_EMBEDDING_KEY")
    asked = spec().model_copy(update={"retrieval": RetrievalSpec.model_validate({"embedding": embedding})})
    assert_checked(allowed, asked, field and f"retrieval.embedding.{field}")


@pytest.mark.parametrize(
    ("url", "key", "field"),
    [
        ("https://judge.example/v1", "TUNEWHEEL_JUDGE_KEY", None),
        ("https://judge.example/v1", "TUNEWHEEL_JUDGE_OTHER", "api_key_env"),
        ("https://elsewhere.example/v1", None, "base_url"),
    ],
)
def test_a_judge_is_held_to_the_same_list(url: str, key: str | None, field: str | None) -> None:
    judge = JudgeSpec.model_validate({"base_url": url, "model": "m", "api_key_env": key})
    allowed = AllowedSources(hosts="judge.example=TUNEWHEEL_JUDGE_KEY")
    asked = spec().model_copy(update={"evaluation": EvaluationSpec(judge=judge)})
    assert_checked(allowed, asked, field and f"evaluation.judge.{field}")


@pytest.mark.parametrize(
    ("url", "key", "field"),
    [
        ("https://large.example/v1", "TUNEWHEEL_FALLBACK_KEY", None),
        ("https://large.example/v1", "TUNEWHEEL_FALLBACK_OTHER", "api_key_env"),
        ("https://other.example/v1", None, "base_url"),
    ],
)
def test_a_fallback_is_held_to_the_same_list(url: str, key: str | None, field: str | None) -> None:
    fallback = {"base_url": url, "model": "m", "api_key_env": key}
    serving = {"abstain": {"risk": 0.05, "to": "endpoint", "endpoint": fallback}}
    asked = spec().model_copy(update={"serving": ServingSpec.model_validate(serving)})
    allowed = AllowedSources(hosts="large.example=TUNEWHEEL_FALLBACK_KEY")
    assert_checked(allowed, asked, field and f"serving.abstain.endpoint.{field}")


def test_a_teacher_that_is_not_asked_may_stay_in_the_spec() -> None:
    AllowedSources().check(spec(teacher={"base_url": "http://anywhere/v1"}, method="extractive"))


@pytest.mark.parametrize(
    "source",
    [
        "some/dataset",
        "https://huggingface.co/datasets/a/b/resolve/main/c.jsonl",
        "https://cdn-lfs.hf.co/c.jsonl",
        "relative/to/where/curate/runs.jsonl",
    ],
)
def test_the_hub_may_be_read_by_default(source: str) -> None:
    AllowedSources().check(spec(source=source))


@pytest.mark.parametrize(
    "source",
    [
        "https://example.com/c.jsonl",
        "http://localhost:8500/v1/kv/secret.json",
        "http://huggingface.co@example.com/c.jsonl",
        "ftp://huggingface.co/c.jsonl",
        "/etc/tunewheel/secrets.json",
        "/etc/tunewheel",
        "file:///etc/tunewheel/secrets.json",
    ],
)
def test_no_other_source_is_allowed_by_default(source: str) -> None:
    with pytest.raises(InvalidSpec, match="TUNEWHEEL_SPEC_") as refused:
        AllowedSources().check(spec(source=source))
    assert refused.value.field == "dataset.replay.source"


def test_a_path_that_leads_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "general"
    folder.mkdir()
    (folder / "link.jsonl").symlink_to("/etc/passwd")
    allowed = AllowedSources(folders=("/nowhere", str(folder)))
    for name in (f"{folder}/a.jsonl", f"{folder}", f"file://{folder}/a%20b.jsonl"):
        allowed.check_source(name)
    for name in (f"{folder}/../b.jsonl", f"{folder}-b/a.jsonl", f"{folder}/link.jsonl", "link.jsonl"):
        with pytest.raises(InvalidSpec, match="TUNEWHEEL_SPEC_FOLDERS"):
            allowed.check_source(name)


def test_an_invalid_path_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="is not a path"):
        AllowedSources(folders=("/",)).check_source("/data\0/a.jsonl")


def test_a_hub_that_is_not_listed_is_not_asked() -> None:
    with pytest.raises(InvalidSpec, match=r"huggingface\.co is not a host"):
        AllowedSources(hosts="").check(spec(source="some/dataset"))


@pytest.mark.parametrize("hosts", ["https://a", "a=KEY", "a b", "*", "a/b", "a:port"])
def test_a_list_that_cannot_be_meant_is_refused(hosts: str) -> None:
    with pytest.raises(ValidationError, match="separate several by commas"):
        AllowedSources(hosts=hosts)
