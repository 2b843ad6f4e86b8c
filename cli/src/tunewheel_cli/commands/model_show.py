"""model show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunewheel_cli.calling import Call, Model, Project, calling

if TYPE_CHECKING:
    from tunewheel_contracts.api.models import ModelDetail


@calling
def command(call: Call, model: Model, project: Project) -> None:
    """Show a model: its stages, what it was trained on, and its figures."""
    found = call.client.models.show(project, model)
    call.show(found, lambda: _print(found))


def _print(found: ModelDetail) -> None:
    from tunewheel_cli.texts import flat, print_facts

    facts = found.base_facts
    print_facts(
        (
            ("model", found.model_id),
            ("kind", found.kind),
            ("stage", found.stage.value),
            ("answers", f"{found.role} {found.percent} %" if found.role else None),
            ("pinned", "yes" if found.pinned else None),
            ("base", f"{found.base.name} at {found.base.revision}"),
            ("licence", facts and facts.license),
            ("parameters", facts and facts.parameters),
            ("context", facts and facts.context_length),
            ("template", facts and facts.chat_template_sha256),
            ("run", found.run_id),
            ("dataset", found.dataset_id),
            ("evaluation", found.evaluation_id),
            ("figures", "withheld: a review of answers is open" if found.withheld else None),
        )
    )
    for check in found.checks:
        print(f"  {check.outcome or ('met' if check.passed else 'missed'):9} {flat(check.reason)}")
    for step in found.history:
        print(f"  {flat(step.at)}  {step.stage.value}: {flat(step.reason)}")
