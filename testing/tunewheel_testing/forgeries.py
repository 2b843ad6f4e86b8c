"""Commands of every kind, and how somebody who may write to Kafka could forge them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from joserfc import jws
from joserfc.jwk import OctKey
from tunewheel_contracts.event import Envelope, KafkaRecord, new_event
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.identity.command_keys import SIGNERS, add_key, import_key

from tunewheel_testing.command_keys import CommandKeys

ADA = Principal(name="ada")
COMMANDS: dict[str, dict[str, Any]] = {
    "dataset.requested": {"reason": "command", "request": "r1"},
    "eval.requested": {"run_id": "run-1", "request": "r1"},
    "train.control": {"run_id": "run-1", "action": "pause", "request": "r1"},
    "sweep.requested": {
        "sweep_id": "sweep-1", "dataset_id": "ds-1", "recipes": [{"rank": 8}], "request": "r1"
    },
    "model.commanded": {"model_id": "m-1", "action": "promote", "reason": "better", "request": "r1"},
    "review.submitted": {"run_id": "run-1", "reviewer": "ada", "verdict": "approved"},
    "review.answered": {
        "run_id": "run-1", "review_id": "rv-1", "item_id": "i-1", "reviewer": "ada", "preference": "better"
    },
    "record.judged": {"record_id": "rec-1", "verdict": "release", "request": "r1"},
    "completions.chosen": {
        "request_id": "labels-chosen-1",
        "completions": [{"completion_id": "x", "partition": 0, "offset": 1}],
    },
    "redelivery.requested": {
        "letter_id": "ingest:ticket.published:0:3", "topic": "ticket.published", "partition": 0, "offset": 1
    },
    "answers.compared": {
        "request_id": "c-1", "model_id": "m-1", "completion_id": "x", "preference": "same", "reviewer": "ada"
    },
}  # fmt: skip

UPSTREAM: dict[str, dict[str, Any]] = {
    "ticket.published": {"ticket_id": "T-1", "body": "b", "answer": "a", "validated_by": "eve"},
    "example.published": {"example_id": "e-1", "input": "b", "output": "a", "validated_by": "eve"},
    "document.published": {"document_id": "a.md", "content": "b"},
    "feedback.received": {"feedback_id": "f-1", "completion_id": "c-1", "rating": "up"},
}


def command(topic: str, project: str, **fields: Any) -> Envelope[Any]:
    """Return a command of Ada's, which nobody has signed."""
    data = {"project": project, "principal": ADA, **COMMANDS[topic], **fields}
    return new_event(BY_NAME[topic].event.model_validate(data), source="/tunewheel/console")


def upstream(topic: str, project: str, **fields: Any) -> Envelope[Any]:
    """Return data that an expert published, before its door signs it."""
    data = {"project": project, "principal": ADA, "authority": "expert", **UPSTREAM[topic], **fields}
    return new_event(BY_NAME[topic].event.model_validate(data), source="/tunewheel/ingest")


def door_of(topic: str) -> str:
    """Return a service that signs events of ``topic``."""
    return next(name for name in SIGNERS if name in BY_NAME[topic].producers)


def with_data(record: KafkaRecord, **fields: Any) -> KafkaRecord:
    return replace(record, value=json.dumps(json.loads(record.value) | fields).encode())


def signature_of(record: KafkaRecord) -> str:
    sealed = record.headers.get("ce_signature")
    return sealed.decode() if sealed is not None else json.loads(record.value)["signature"]


def with_signature(record: KafkaRecord, signature: str) -> KafkaRecord:
    if record.topic in UPSTREAM:
        return replace(record, headers=record.headers | {"ce_signature": signature.encode()})
    return with_data(record, signature=signature)


def signed_anew(record: KafkaRecord, header: dict[str, Any], key: Any, algorithm: str) -> KafkaRecord:
    """Sign what the door signed by another key or algorithm."""
    payload = jws.extract_compact(signature_of(record).encode()).payload
    signature = jws.serialize_compact(header, payload, key, algorithms=[algorithm])
    return with_signature(record, signature)


def unsigned(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    data = json.loads(record.value)
    del data["signature"]
    return replace(record, value=json.dumps(data).encode())


def by_an_unknown_key(record: KafkaRecord, keys: CommandKeys) -> KafkaRecord:
    theirs = import_key(json.loads(add_key(keys.file.with_name("theirs.json"), "console")))
    return signed_anew(record, {"alg": "Ed25519", "kid": theirs.kid}, theirs, "Ed25519")


def by_an_unknown_key_of_a_known_name(record: KafkaRecord, keys: CommandKeys) -> KafkaRecord:
    theirs = import_key(json.loads(add_key(keys.file.with_name("theirs.json"), "console")))
    known = import_key(json.loads(keys.private["console"]))
    return signed_anew(record, {"alg": "Ed25519", "kid": known.kid}, theirs, "Ed25519")


def by_a_service_that_does_not_publish_it(record: KafkaRecord, keys: CommandKeys) -> KafkaRecord:
    other = next(name for name in SIGNERS if name not in BY_NAME[record.topic].producers)
    key = import_key(json.loads(keys.private[other]))
    return signed_anew(record, {"alg": "Ed25519", "kid": key.kid}, key, "Ed25519")


def of_another_command(record: KafkaRecord, keys: CommandKeys) -> KafkaRecord:
    if record.topic in UPSTREAM:
        other = keys.sealed(upstream(record.topic, "another"), by=door_of(record.topic))
    else:
        other = keys.sign(command(record.topic, "another")).to_kafka()
    return with_signature(record, signature_of(other))


def with_another_principal(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return with_data(record, principal={"name": "mallory"})


def with_other_data(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    project = f"{json.loads(record.value)['project']}-other"
    changed = with_data(record, project=project)
    return replace(changed, headers=changed.headers | {"ce_project": project.encode()})


def with_an_unknown_field(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return with_data(record, force_all=True)


def with_a_field_twice(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return replace(record, value=b'{"project": "other", ' + record.value[1:])


def with_another_id(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return replace(record, headers=record.headers | {"ce_id": b"another"})


def by_algorithm_none(record: KafkaRecord, keys: CommandKeys) -> KafkaRecord:
    kid = json.loads(keys.private["console"])["kid"]
    payload = signature_of(record).split(".")[1]
    header = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": kid}).encode()).decode().rstrip("=")
    return with_signature(record, f"{header}.{payload}.")


def by_hs256_with_the_public_key(record: KafkaRecord, keys: CommandKeys) -> KafkaRecord:
    public = import_key(json.loads(keys.private["console"]))
    secret = OctKey.import_key(base64.urlsafe_b64decode(f"{public.as_dict(private=False)['x']}="))
    return signed_anew(record, {"alg": "HS256", "kid": public.kid}, secret, "HS256")


def by_a_list_as_header(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    header = base64.urlsafe_b64encode(b'["alg", "kid"]').decode().rstrip("=")
    payload, signature = signature_of(record).split(".")[1:]
    return with_signature(record, f"{header}.{payload}.{signature}")


def that_is_no_signature(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return with_signature(record, "sig\u00e9")


def that_is_empty(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return with_signature(record, "")


def with_another_time(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return replace(record, headers=record.headers | {"ce_time": b"2026-01-01T00:00:00Z"})


def with_a_second_time(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return replace(record, headers=record.headers | {"Ce_Time": b"2026-01-01T00:00:00Z"})


def with_more_authority(record: KafkaRecord, _: CommandKeys) -> KafkaRecord:
    return replace(record, value=record.value.replace(b'"authority":"unverified"', b'"authority":"expert"'))


Forge = Callable[[KafkaRecord, CommandKeys], KafkaRecord]
FORGERIES: tuple[Forge, ...] = (
    unsigned,
    by_an_unknown_key,
    by_an_unknown_key_of_a_known_name,
    by_a_service_that_does_not_publish_it,
    of_another_command,
    with_another_principal,
    with_other_data,
    with_an_unknown_field,
    with_a_field_twice,
    with_another_id,
    by_algorithm_none,
    by_hs256_with_the_public_key,
    by_a_list_as_header,
    that_is_no_signature,
    that_is_empty,
)
FORGED_DATA: tuple[Forge, ...] = (
    *(forge for forge in FORGERIES if forge is not unsigned),
    with_another_time, with_a_second_time, with_more_authority,
)  # fmt: skip
