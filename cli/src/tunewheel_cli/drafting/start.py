"""``start``: from paths to a drafted project."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.yaml_reading import read_yaml

from tunewheel_cli.drafting.base import METHOD, Base, available_models, choose_base, this_device
from tunewheel_cli.drafting.draft import Draft, draft, task_of, tokens_needed
from tunewheel_cli.drafting.files import ReadAll, read_all
from tunewheel_cli.publishing.lines import OnBytes
from tunewheel_cli.surveying.near import near_duplicates
from tunewheel_cli.surveying.shape import plain
from tunewheel_cli.surveying.tokens import measure

NOTHING = "documents alone teach no answers, and judge none; give a file of answered questions too"
MANY, FEW = 20_000, 1_000
"""Of so many examples one epoch is enough; so few are learnt from three times."""


class NothingToDraft(TunewheelError):
    """The paths hold no examples."""


_SAYS_NOTHING = r"(train|training|test|data|dataset|export|part|fold|file|sample|examples)?[-_0-9of]*"


@dataclass(frozen=True, slots=True)
class Started:
    """A drafted project."""

    project: str
    text: str
    draft: Draft
    read: ReadAll
    base: Base

    def commands(self, path: Path) -> list[str]:
        """Return what to run next."""
        validated = not self.read.survey.unvalidated
        return [
            "tunewheel up --detach",
            shlex.join(["tunewheel", "project", "declare", str(path)]),
            *(file.command(self.project, validated=validated) for file in self.read.files),
            *(
                shlex.join(["tunewheel", "publish", str(one), "--project", self.project])
                for one in self.read.documents
            ),
            shlex.join(["tunewheel", "turn", "wait", "--project", self.project]),
        ]


def start(
    paths: Sequence[Path],
    *,
    project: str | None = None,
    base_model: str | None = None,
    maps: Sequence[str] = (),
    on_bytes: OnBytes | None = None,
) -> Started:
    """Draft a project of the files and folders at ``paths``.

    Raises:
        NothingToDraft: they hold no examples.
        SourceUnusable, InvalidOption: see ``read_all``.
    """
    read = read_all(paths, maps=maps, on_bytes=on_bytes)
    if not read.files:
        raise NothingToDraft(f"{', '.join(map(str, paths))}: {NOTHING}")
    survey = read.survey
    epochs = 3 if survey.examples < FEW else 2 if survey.examples < MANY else 1
    task, longest = task_of(survey, read.prompts.most_common(1)), tokens_needed(survey)
    stats = measure(survey, None, system_prompt=task.fields["system_prompt"]).stats
    device = this_device()
    models = available_models() if base_model is None else ()
    base = choose_base(stats, device, available=models, epochs=epochs, max_tokens=longest)
    if base_model is not None:
        base = _named(base_model)
    questions = [question for _, question in survey.sample.kept]
    near = near_duplicates(list(dict.fromkeys(questions))) / max(1, len(questions))
    name = project or project_name(paths[0])
    made = draft(
        survey, task, base, project=name, near=near, epochs=epochs, max_tokens=longest,
        documents=bool(read.documents), files=[str(file.path) for file in read.files],
    )  # fmt: skip
    return Started(name, written(made), made, read, base)


def _named(base_model: str) -> Base:
    from tunewheel_contracts.formats.methods import parameters_named, suitable_rate
    from tunewheel_planner.shapes import KNOWN

    shape = KNOWN.get(base_model)
    size = shape.parameters if shape is not None else parameters_named(base_model)
    rate = suitable_rate(METHOD, size or 1e9)
    return Base(base_model, rate, None, "named by --base-model")


def project_name(path: Path) -> str:
    """Return a name for the project of the file or folder at ``path``."""
    stem = path.resolve().name
    while (shorter := Path(stem).stem) != stem:
        stem = shorter
    if re.fullmatch(_SAYS_NOTHING, stem.casefold()):
        stem = path.resolve().parent.name
    name = re.sub(r"[^a-z0-9]+", "-", plain(stem))[:40].strip("-")
    return name if name and name[0].isalpha() else f"project-{name}".strip("-")


WIDTH = 110
LONGEST_COMMENT = 600


def written(draft: Draft) -> str:
    """Return the file's text, YAML with comments. Reading it gives the draft's spec again: texts of the
    user's files get into it through the YAML library alone."""
    text = "\n".join(
        "".join([*_comments(section.comments), _dumped(section.fields)]) for section in draft.sections
    )
    if read_yaml(text) != draft.spec:
        raise AssertionError("the file would say something else than the draft")
    return text


def _comments(comments: tuple[str, ...]) -> Iterator[str]:
    for comment in comments:
        # A line break in a comment would end it: what follows would be YAML.
        plain = " ".join("".join(char if char.isprintable() else " " for char in comment).split())
        for line in textwrap.wrap(plain[:LONGEST_COMMENT], WIDTH - 2, break_on_hyphens=False):
            yield f"# {line}\n"


def _dumped(fields: object) -> str:
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True, width=WIDTH, default_flow_style=False)
