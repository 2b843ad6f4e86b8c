"""Label Studio's JSON: a request for labels as labelling config and tasks, and annotations as answers. Pure.

The formats are those of https://labelstud.io/guide/export (``JSON``) and https://labelstud.io/guide/tasks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from tunewheel_contracts.errors import TunewheelError

TEXT = "conversation"
WHOLE = "answer"
"""The control for a task whose answer is one text."""
OUTSIDE = "out of scope"


class InvalidAnnotation(TunewheelError):
    """A file, a task or an annotation is not as Label Studio exports it, or not of an exported request."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One person's answer. ``output`` None: out of scope."""

    request_id: str
    number: int
    annotator: str
    output: dict[str, Any] | str | None
    at: str | None = None
    """When the person gave it, or changed it last."""


def config_of(fields: Sequence[Any]) -> str:
    """Return the labelling config (XML) for an answer with these ``fields``."""
    lines = [
        "<View>",
        f'  <Paragraphs name="{TEXT}" value="$messages" layout="dialogue" nameKey="role" textKey="content"/>',
        *(f"  {line}" for field in fields for line in _control(field)),
        f'  <Choices name="{OUTSIDE}" toName="{TEXT}"><Choice value="{OUTSIDE}"/></Choices>',
        "</View>",
    ]
    return "\n".join(lines) + "\n"


def _control(field: Any) -> Iterator[str]:
    """Yield a field's control. None is required: who says "out of scope" gives no answer."""
    name = quoteattr(field.name or WHOLE)
    yield f"<Header value={name}/>"
    match field.kind:
        case "choice" | "yes_no":
            values = "".join(f"<Choice value={quoteattr(text)}/>" for text in _choices(field))
            yield f'<Choices name={name} toName="{TEXT}" choice="single">{values}</Choices>'
        case "number":
            yield f'<Number name={name} toName="{TEXT}"/>'
        case _:
            yield f'<TextArea name={name} toName="{TEXT}" editable="true" maxSubmissions="1"/>'


def _choices(field: Any) -> dict[str, Any]:
    """Return a field's values by the text that a person sees."""
    values = (True, False) if field.kind == "yes_no" else field.choices
    return {value if isinstance(value, str) else json.dumps(value): value for value in values}


def task_of(request_id: str, item: Any, fields: Sequence[Any]) -> dict[str, Any]:
    """Return a prompt as a task, with the model's own answer as its prediction."""
    data = {
        "request_id": request_id,
        "number": item.number,
        "completion_id": item.completion_id,
        "messages": [{"role": message.role, "content": message.content} for message in item.messages],
    }
    result = [part for field in fields if (part := _predicted(field, item.model_output)) is not None]
    return {"data": data} | (
        {"predictions": [{"model_version": "served", "result": result}]} if result else {}
    )


def _predicted(field: Any, output: str | None) -> dict[str, Any] | None:
    try:
        value = json.loads(output or "")[field.name] if field.name else output
    except (ValueError, TypeError, LookupError):
        return None
    texts = {json.dumps(known): text for text, known in _choices(field).items()}
    name = {"from_name": field.name or WHOLE, "to_name": TEXT}
    if field.kind in ("choice", "yes_no"):
        text = texts.get(json.dumps(value))
        return None if text is None else name | {"type": "choices", "value": {"choices": [text]}}
    if field.kind == "number":
        return (
            name | {"type": "number", "value": {"number": value}} if isinstance(value, int | float) else None
        )
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return name | {"type": "textarea", "value": {"text": [text]}} if text else None


def annotations_in(tasks: Any, fields_of: Callable[[str], Sequence[Any]]) -> list[Annotation]:
    """Return the answers in an export (``JSON``), in its order. Annotations that were skipped, and tasks
    without any, give none. ``fields_of`` returns the fields of a request's answers.

    Raises:
        InvalidAnnotation: the file is no such export; the task is named.
    """
    if not isinstance(tasks, list):
        raise InvalidAnnotation("the file must hold a list of tasks; export it from Label Studio as JSON")
    found: list[Annotation] = []
    for place, task in enumerate(tasks):
        try:
            data = task["data"]
            for one in task["annotations"]:
                if not one.get("was_cancelled") and one["result"]:
                    request_id = str(data["request_id"])
                    output = _answer(one["result"], fields_of(request_id))
                    at = one.get("updated_at") or one.get("created_at")
                    found.append(Annotation(request_id, int(data["number"]), _person(one), output, at))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InvalidAnnotation(
                f"[{place}] is no task of an exported request: {error!r}; take the tasks of "
                "`tunewheel label export`, and export them from Label Studio as JSON, not JSON-MIN"
            ) from error
    return found


def _person(annotation: Mapping[str, Any]) -> str:
    by = annotation.get("completed_by")
    if isinstance(by, Mapping):
        return str(by.get("email") or by["id"])
    return by if isinstance(by, str) else f"label-studio-{by}"


def _answer(result: Sequence[Mapping[str, Any]], fields: Sequence[Any]) -> dict[str, Any] | str | None:
    values = {part["from_name"]: part["value"] for part in result if "from_name" in part}
    if OUTSIDE in values:
        return None
    said = {
        field.name: _said(field, values[name]) for field in fields if (name := field.name or WHOLE) in values
    }
    if "" not in said:
        return said
    text = str(said[""])
    return json.loads(text) if fields[0].kind == "json" else text


def _said(field: Any, value: Mapping[str, Any]) -> Any:
    if field.kind in ("choice", "yes_no"):
        return _choices(field)[value["choices"][0]]
    if field.kind == "number":
        return value["number"]
    text = value["text"] if isinstance(value["text"], str) else "\n".join(value["text"])
    return json.loads(text) if field.kind == "json" and field.name else text
