"""The commands in one table: words, one line of help, the function, and the panel that lists them.

Nothing is imported here, so that help costs no more than Python's start.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """One command. ``place`` is ``module:function``; a module without a dot lies in ``commands``."""

    words: str
    help: str
    place: str


HELP = "Keeps a fine-tuned language model in step with a business."
EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong option, 3 part of the input was refused, 4 topics differ from "
    "their specs, 5 Kafka or a service does not answer, 6 an erasure, a command on a model or an evaluation "
    "was not carried out in time, 7 the API key is unknown or lacks a role, or Kafka does not allow it."
)
PANELS: dict[str, tuple[Entry, ...]] = {
    "Begin": (
        Entry("demo", "Run the whole loop on the bundled example.", "tunewheel_demo.command:demo"),
        Entry("init", "Draft a project of your files.", "init:init"),
        Entry("plan", "Say what training takes: memory, hours, dollars.", "planning:plan"),
        Entry("up", "Start Kafka, the topics and the services.", "running:up"),
        Entry("down", "Stop the wheel that runs on this folder.", "running:down"),
        Entry("login", "Log in to a wheel, or print a link for the browser.", "login:command"),
        Entry("context list", "List the wheels that you logged in to.", "context:list_"),
        Entry("context use", "Use a wheel, and a project, from now on.", "context:use"),
        Entry("context show", "Show which wheel is meant, and as whom.", "context:show"),
    ),
    "Every day": (
        Entry("status", "Show services, how far they are behind, and projects.", "status:command"),
        Entry("watch", "Follow the log, one line per event.", "watch:command"),
        Entry("publish", "Publish tickets, examples or documents.", "publish:publish"),
        Entry("ask", "Ask a project's model through the gateway.", "ask:command"),
        Entry("withdraw", "Keep documents out of every version from here on.", "withdraw:command"),
        Entry("forget", "Erase what was published about a person.", "forget:command"),
        Entry("lineage", "Show what something came from, and what came of it.", "lineage:command"),
    ),
    "What there is": (
        Entry("project list", "List projects: where each is, and what it serves.", "project:list_"),
        Entry("project show", "Show where a project is, and what to do next.", "project:show"),
        Entry("project declare", "Check a project spec and put it in force.", "project:declare"),
        Entry("project remove", "Take back a project's declaration.", "project:remove"),
        Entry("dataset list", "List dataset versions.", "dataset:list_"),
        Entry("dataset show", "Show what a version holds, and what was dropped.", "dataset:show"),
        Entry("dataset diff", "Show what changed from one version to another.", "dataset:diff"),
        Entry("dataset export", "Write a version's rows to a folder.", "dataset:export"),
        Entry("dataset build", "Ask for a new version now.", "dataset:build"),
        Entry("quarantine list", "List records that wait for a person, and why.", "quarantine:list_"),
        Entry("quarantine release", "Let the next version use records that wait.", "quarantine:release"),
        Entry("quarantine refuse", "Keep records that wait out of every version.", "quarantine:refuse"),
        Entry("run list", "List training runs: how far each is, and its verdict.", "run:list_"),
        Entry("run show", "Show a run: progress, losses, verdict, why it failed.", "run:show"),
        Entry("run pause", "Let a run write a checkpoint and free the machine.", "run:pause"),
        Entry("run resume", "Let a run go on, or train it again.", "run:resume"),
        Entry("run cancel", "End a run for good.", "run:cancel"),
        Entry("run evaluate", "Judge a run again.", "run:evaluate"),
        Entry("run scorecard", "Show how a run was judged.", "run:scorecard"),
        Entry("run export", "Write a run's model for other tools.", "run:export"),
        Entry("train run", "Try a recipe on a dataset version.", "train:run"),
        Entry("train sweep", "Try several recipes, and compare them.", "train:sweep"),
        Entry("train list", "List the recipes that were tried.", "train:list_"),
        Entry("train show", "Show what recipes reached that were tried.", "train:show"),
        Entry("model list", "Show every registered model.", "model:list_"),
        Entry("model show", "Show a model: stages, origin, figures.", "model:show"),
        Entry("model promote", "Put a model into production at once.", "model:promote"),
        Entry("model rollback", "Take a model out of traffic.", "model:rollback"),
        Entry("model pin", "Keep production with the model that is in it.", "model:pin"),
        Entry("model unpin", "Let others into production again.", "model:unpin"),
        Entry("model retire", "Take a model out in good order.", "model:retire"),
        Entry("model reject", "Take a version out for good.", "model:reject"),
        Entry("model stop", "Send all traffic to the champion, or to the base.", "model:stop"),
        Entry("model card", "Print a model's card.", "model:card"),
        Entry("model compare", "Show what changed from one model to another.", "model:compare"),
        Entry("turn list", "List turns of the wheel: how far, and did it help.", "turn:list_"),
        Entry("turn show", "Show how far a turn came, and what it led to.", "turn:show"),
        Entry("turn wait", "Wait until a turn has ended.", "turn:wait"),
        Entry("alarm list", "List alarms: production differs from the data.", "alarm:list_"),
        Entry("alarm show", "Show an alarm, and the questions behind it.", "alarm:show"),
        Entry("detector list", "List what each detector measures now.", "detector:list_"),
        Entry("label list", "List requests for answers.", "label:list_"),
        Entry("label show", "Show a prompt that waits for an answer.", "label:show"),
        Entry("label answer", "Answer a prompt.", "label:answer"),
        Entry("label export", "Write the open prompts of a request for Label Studio.", "label:export"),
        Entry("label import", "Publish the annotations of a Label Studio export.", "label:import_"),
        Entry("review list", "List reviews of answers.", "review:list_"),
        Entry("review show", "Show two answers to compare.", "review:show"),
        Entry("review answer", "Say which answer is better.", "review:answer"),
        Entry("review submit", "Give your last word on a review.", "review:submit"),
        Entry("source test", "Show what becomes of another system's records.", "source:try_"),
        Entry("dead-letter list", "Show what services refused.", "dead_letter:list_"),
        Entry("dead-letter again", "Let a service handle a message once more.", "dead_letter:again"),
    ),
    "Who may": (
        Entry("key list", "Show who has a key, and what each may do.", "key:list_"),
        Entry("key add", "Make a key, and print it once.", "key:add"),
        Entry("key rotate", "Give a name a new key.", "key:rotate"),
        Entry("key revoke", "Take a key away.", "key:revoke"),
        Entry("key show", "Print the key that commands send, for scripts.", "key:show"),
    ),
    "Installation": (
        Entry("doctor", "Look for what is wrong with an installation.", "doctor:doctor"),
        Entry("admin key-file", "Change a file of API keys, without a wheel.", "admin_key_file:command"),
        Entry("admin audit", "List or export who ordered what.", "admin_audit:command"),
        Entry("contracts publish", "Write schemas into a schema registry.", "contracts:publish"),
        Entry("admin topics", "Compare the topics of a Kafka with their specs.", "topics:topics"),
        Entry("admin acls", "Print the least rights that each principal needs.", "topics:acls"),
        Entry(
            "admin signing-keys",
            "Make, retire or list the keys that sign commands.",
            "admin_signing_keys:signing_keys",
        ),
        Entry(
            "admin lm-eval",
            "Check tasks of lm-evaluation-harness in a folder.",
            "admin_lm_eval:command",
        ),
    ),
}
"""By panel, its commands in the order of the help."""
NOUNS = {
    "context": "The wheels that you logged in to",
    "project": "Projects",
    "dataset": "Dataset versions",
    "quarantine": "Records that wait for a person before they train",
    "run": "Training runs",
    "train": "Recipes that are tried before the wheel turns with them",
    "model": "Models",
    "turn": "Turns of the wheel",
    "alarm": "Alarms",
    "detector": "Detectors",
    "label": "Prompts of production that wait for answers",
    "review": "Blind comparisons of answers",
    "source": "Other systems that a project learns from",
    "dead-letter": "Refused messages",
    "key": "API keys",
    "contracts": "The schemas of topics",
    "admin": "Kafka and what an installation needs",
}
"""By first word of commands with two words, what they are about."""
BY_WORDS = {entry.words: entry for entries in PANELS.values() for entry in entries}


def below(prefix: str) -> dict[str, str]:
    """Return the next words after ``prefix`` that the help lists, each with its line of help, in order."""
    found: dict[str, str] = {}
    start = f"{prefix} " if prefix else ""
    for entries in PANELS.values():
        for entry in entries:
            if entry.words.startswith(start):
                word, *inner = entry.words.removeprefix(start).split()
                found.setdefault(word, NOUNS[word] if inner else entry.help)
    return found


def explained(words: list[str]) -> str | None:
    """Return the help of ``tunewheel`` alone, or of a noun; None: ``words`` do not ask for it."""
    named = words[:-1] if words[-1:] == ["--help"] else words
    if not named:
        return _root_help()
    noun = " ".join(named)
    if noun not in NOUNS:
        return None
    verbs = below(noun)
    width = max(map(len, verbs))
    listed = [f"  {verb:{width}}  {text}" for verb, text in verbs.items()]
    usage = f"Usage: tunewheel {noun} COMMAND [ARGS]..."
    return "\n".join([usage, "", f"  {NOUNS[noun]}.", "", "Commands:", *listed])


def _root_help() -> str:
    """Return the panels, with one line for each noun and each verb."""
    lines = ["Usage: tunewheel [--version] COMMAND [ARGS]...", "", f"  {HELP}"]
    listed = below("")
    width = max(map(len, listed))
    for panel, entries in PANELS.items():
        lines += ["", f"{panel}:"]
        for name in dict.fromkeys(entry.words.split()[0] for entry in entries):
            verbs = ", ".join(below(name))
            lines.append(f"  {name:{width}}  {listed[name]}" + (f": {verbs}" if verbs else ""))
    return "\n".join([*lines, "", "`tunewheel COMMAND --help` explains a command.", "", *_folded(EPILOG)])


def _folded(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 100)
