"""``POST /v1/search``: what a question finds in a project's documents, and why. No model is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Required

from pydantic import Field, TypeAdapter, ValidationError, with_config
from tunewheel_retrieval.prompts import LONGEST_QUESTION
from tunewheel_runtime.identity.roles import Caller, Role
from typing_extensions import TypedDict

from tunewheel_serve_gateway.chat_body import CLOSED
from tunewheel_serve_gateway.chat_request import parse_json, refusal_of
from tunewheel_serve_gateway.errors import BadRequest, Headers, Unavailable, UnknownModel
from tunewheel_serve_gateway.limits.admitting import Admission
from tunewheel_serve_gateway.retrieval.retriever import Retriever

READERS = (Role.APPLICATION, Role.VIEWER)


@with_config(CLOSED)
class SearchBody(TypedDict, total=False):
    """A question to a project's documents."""

    project: Required[Annotated[str, Field(min_length=1)]]
    question: Required[Annotated[str, Field(min_length=1, max_length=LONGEST_QUESTION)]]
    """Searched as a user's last message is."""


SEARCH_BODY = TypeAdapter(SearchBody)


@dataclass
class Search:
    retriever: Retriever
    admission: Admission

    async def answer(self, raw: bytes, caller: Caller) -> tuple[bytes, Headers]:
        """Return a ``PassageSearch`` as JSON, and the headers that go with it. It finds what a prompt of this
        caller would get, so no passage that is for other groups.

        Raises:
            BadRequest, LimitReached
            UnknownModel: there is no project of that name, or this caller may not use it.
            Unavailable: the project has no index that could be searched.
        """
        try:
            body = SEARCH_BODY.validate_python(parse_json(raw))
        except ValidationError as error:
            raise refusal_of(error, ()) from error
        project = body["project"]
        may = any(caller.may(role, project) for role in READERS)
        if not may or self.retriever.spec_of(project) is None:
            raise UnknownModel(f"project {project!r} is not served, or not for this caller", param="project")
        if self.retriever.spec(project) is None:
            reason = f"project {project} declares no retrieval; add it to the project's spec"
            raise BadRequest(reason, param="project", code="invalid_value")
        admitted = await self.admission.admit(caller, size=len(raw), output_tokens=0, param="question")
        try:
            found = await self.retriever.explain(project, body["question"], caller.groups)
            admitted.used = admitted.prompt
        finally:
            await self.admission.settle(admitted)
        if found is None:
            reason = f"the documents of project {project} cannot be searched yet; try again shortly"
            raise Unavailable(reason, param="project", retry_after="2")
        return found.model_dump_json().encode(), admitted.headers
