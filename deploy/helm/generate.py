"""Write what the chart takes from the code: topics, groups, rights, and the names of the services' settings.

python deploy/helm/generate.py               write what changed
python deploy/helm/generate.py --check       change nothing; exit 1 and list what is stale
python deploy/helm/generate.py --pack DIR    write the chart to DIR/tunewheel, with the examples, and a copy
                                             of the rules and dashboards of deploy/observability: Helm
                                             reads no other folder
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import yaml
from tunewheel_cli.acls import PRINCIPALS, least_acls
from tunewheel_cli.acls import SERVICES as ON_BUS
from tunewheel_contracts.topics import TOPICS
from tunewheel_local.topics import wanted_topics

HERE = Path(__file__).resolve().parent
CHART = HERE / "tunewheel"
OBSERVABILITY = HERE.parent / "observability"
PARTS = {"rules": ("*.yml", "*.yaml"), "dashboards": ("*.json",)}
"""Folders of ``deploy/observability`` that the chart installs."""


def open_settings(service: str) -> set[str]:
    """Return the names of a service's settings, in small letters, but for secrets: those are no values."""
    module = importlib.import_module(f"tunewheel_{service.replace('-', '_')}.settings")
    fields = module.Settings.model_fields
    return {name for name, field in fields.items() if "SecretStr" not in str(field.annotation)}


def told_by_chart(service: str, *, bus: bool) -> set[str]:
    """Return the settings that the chart itself sets: nobody may set them a second time."""
    environment = yaml.safe_load((CHART / "files/environment.yaml").read_text("utf-8"))
    groups = ("all", service, *(("bus",) if bus else ()))
    names = {
        name for part in ("variables", "secrets") for g in groups for name in environment[part].get(g, ())
    }
    return {name.removeprefix("TUNEWHEEL_").lower() for name in names} | {"instance"}


def kafka_file() -> dict[str, Any]:
    """Return topics by name, the groups of each service, and each principal's rights."""
    acls: dict[str, list[dict[str, Any]]] = {}
    for acl in least_acls():
        right = {"type": acl.kind, "name": acl.resource, "operations": list(acl.operations)}
        acls.setdefault(acl.name, []).append(right)
    groups = {
        service: [
            {"group": group, "topic": spec.name} for spec in TOPICS for group in spec.groups_of(service)
        ]
        for service in (*ON_BUS, "engine")
    }
    topics = {
        topic.name: {"partitions": topic.partitions, "config": topic.configs} for topic in wanted_topics()
    }
    return {"topics": topics, "groups": groups, "acls": acls}


def schema_file() -> dict[str, Any]:
    """Return the schema of values, with principals and the settings of each service as they are now."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    schema["properties"]["doctor"]["properties"]["principal"] = {"enum": list(PRINCIPALS)}
    facts = yaml.safe_load((CHART / "files/services.yaml").read_text("utf-8"))
    # Services have users without being named, and with Strimzi the operator makes the topics.
    others = [name for name in PRINCIPALS if name not in (*facts, "topics")]
    users = schema["properties"]["strimzi"]["properties"]["users"]
    users["properties"]["people"]["items"]["enum"] = others
    digests = schema["properties"]["image"]["properties"]["digests"]
    digests["propertyNames"]["enum"] = sorted([*facts, "cli", "train-launcher"])
    for service, fact in facts.items():
        free = open_settings(service) - told_by_chart(service, bus=fact.get("bus", False))
        schema["$defs"][f"settings-of-{service}"] = {
            "type": "object",
            "properties": {name: {"$ref": "#/$defs/setting"} for name in sorted(free)},
            "additionalProperties": False,
        }
    return schema


def generated() -> dict[Path, str]:
    """Return text by file; the same on every machine."""
    kafka = ",\n".join(f'"{part}": {{\n{_lines(content)}\n}}' for part, content in kafka_file().items())
    schema = json.dumps(schema_file(), indent=1)
    return {CHART / "files/kafka.json": f"{{\n{kafka}\n}}\n", CHART / "values.schema.json": f"{schema}\n"}


def _lines(content: dict[str, Any]) -> str:
    return ",\n".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items())


def stale() -> list[Path]:
    """Return the files that differ from what they are generated from."""
    return [
        path for path, text in generated().items() if not path.is_file() or path.read_text("utf-8") != text
    ]


def pack(folder: Path) -> Path:
    """Write the whole chart below ``folder`` and return where."""
    target = folder / CHART.name
    if target.exists():
        shutil.rmtree(target)
    shutil.copytree(CHART, target)
    shutil.copytree(HERE / "examples", target / "examples")
    for part, patterns in PARTS.items():
        for file in (file for pattern in patterns for file in sorted((OBSERVABILITY / part).glob(pattern))):
            place = target / "observability" / part / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    return target


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when anything is stale")
    parser.add_argument("--pack", type=Path, metavar="DIR", help="write the chart below DIR")
    options = parser.parse_args()
    paths = stale()
    if options.check or options.pack:
        for path in paths:
            print(
                f"stale: {path.relative_to(HERE)}; run `make generate` and commit the result", file=sys.stderr
            )
        if paths:
            return 1
        if options.pack:
            print(pack(options.pack))
        return 0
    for path, text in generated().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
