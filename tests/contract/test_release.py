"""One version for all packages, images and the chart; every package says under which license it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
FILES = (
    "deploy/helm/tunewheel/Chart.yaml", "deploy/compose/compose.yaml", "deploy/images/Dockerfile",
    "deploy/README.md", "deploy/compose/README.md", "docs/releasing.md", "tests/kube/chart.py",
)  # fmt: skip
PACKAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("pyproject.toml", "*/pyproject.toml", "services/*/pyproject.toml")
    for path in ROOT.glob(pattern)
)


def versions(root: Path) -> dict[str, set[str]]:
    """Return by file which versions of Tunewheel it names."""
    found: dict[str, set[str]] = {}
    for name in PACKAGES:
        project = tomllib.loads((root / name).read_text("utf-8"))["project"]
        texts = [*project["dependencies"], *chain(*project.get("optional-dependencies", {}).values())]
        ours = [one for one in map(Requirement, texts) if one.name.startswith("tunewheel")]
        found[name] = {project["version"], *(str(one.specifier).removeprefix("==") for one in ours)}
    chart = yaml.safe_load((root / FILES[0]).read_text("utf-8"))
    found[FILES[0]] = {chart["version"], chart["appVersion"]}
    image = re.compile(
        r"(?:tunewheel|registry|\$service|(?<![A-Z_])VERSION)[\w./-]*"
        r"(?::-|:|=|`.*?\| `| --version )(\d+\.\d+\.\d+\b)"
    )
    return found | {name: {*image.findall((root / name).read_text("utf-8"))} for name in FILES[1:]}


def test_every_place_has_the_one_version() -> None:
    one = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert len(PACKAGES) > 20
    assert {name: told for name, told in versions(ROOT).items() if told != {one}} == {}
    assert f"\n## {one}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_version_writes_it_everywhere_and_nothing_else(tmp_path: Path) -> None:
    for name in (*PACKAGES, *FILES, "Makefile", "deploy/vllm/pyproject.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    before = (tmp_path / "pyproject.toml").read_text("utf-8")
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "-C", str(tmp_path), "version", "TO=9.8.7"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {name: told for name, told in versions(tmp_path).items() if told != {"9.8.7"}} == {}
    after = (tmp_path / "pyproject.toml").read_text("utf-8")
    changed = [new for old, new in zip(before.splitlines(), after.splitlines(), strict=True) if old != new]
    assert all(line.startswith('version = "') or '"tunewheel-' in line for line in changed), changed


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize("to", ["", "latest", "v0.2.0", "0.2", "0.2.0rc1", "0.2.0/x", "0.2.0 0.3.0"])
def test_make_version_refuses_what_a_wheel_or_the_chart_cannot_have(to: str, tmp_path: Path) -> None:
    for name in ("pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    command = ["make", "-C", str(tmp_path), "version", f"TO={to}"]
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode != 0
    assert "make version TO=0.2.0" in done.stdout
    assert (tmp_path / "pyproject.toml").read_bytes() == (ROOT / "pyproject.toml").read_bytes()


def test_a_package_needs_its_siblings_in_its_own_version() -> None:
    """Otherwise an upgrade of one package would leave the others as they were."""
    for name in PACKAGES:
        project = tomllib.loads((ROOT / name).read_text("utf-8"))["project"]
        ours = [one for one in map(Requirement, project["dependencies"]) if one.name.startswith("tunewheel")]
        assert {str(one.specifier) for one in ours} <= {f"=={project['version']}"}, name


@pytest.mark.parametrize("name", PACKAGES)
def test_every_package_has_the_license_in_its_wheel(name: str) -> None:
    folder = (ROOT / name).parent
    project = tomllib.loads((ROOT / name).read_text("utf-8"))["project"]
    assert project["license-files"] == ["LICENSE"]
    assert (folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def release(folder: Path, **told: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/release.sh into ``folder``/dist, which holds a file of the release before."""
    (folder / "dist").mkdir()
    (folder / "dist/images.yaml").write_text("of the release before")
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    environment = os.environ | {"OUT": str(folder / "dist"), "PYTHON": sys.executable} | told
    command = [str(ROOT / "scripts/release.sh"), version]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(
    "told",
    [
        {"KEY": "/there is/no.pem"},
        {"REGISTRY": "https://registry.example.org/tunewheel"},
        {"REGISTRY": "oci://registry.example.org/tunewheel"},
        {"REGISTRY": "registry.example.org/tunewheel/"},
        {"REGISTRY": "registry.example.org/Tunewheel"},
        {"REGISTRY": "registry.example.org/tune wheel"},
    ],
)
def test_a_release_that_could_not_be_signed_or_pushed_is_not_begun(
    told: dict[str, str], tmp_path: Path
) -> None:
    done = release(tmp_path, **told)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{next(iter(told))}: ")
    assert (tmp_path / "dist/images.yaml").exists()


def programs(folder: Path, **scripts: str) -> None:
    """Write stand-ins of programs into ``folder``."""
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)


@pytest.mark.parametrize("missing", ["buildah", "helm", "cosign"])
def test_a_release_is_not_begun_without_a_program_that_pushes_or_signs(missing: str, tmp_path: Path) -> None:
    for name in ("sh", "awk", "dirname", "git", "grep", "ls"):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    programs(tmp_path, **dict.fromkeys({"buildah", "helm", "cosign"} - {missing}, "exit 0"))
    key = tmp_path / "private.pem"
    key.touch()
    told = {"PATH": str(tmp_path), "KEY": str(key), "REGISTRY": "registry.example.org/wheels"}
    done = release(tmp_path, **told)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"REGISTRY needs {missing}, which is not installed\n"
    assert (tmp_path / "dist/images.yaml").exists()


@pytest.mark.parametrize(
    ("fails_at", "code"), [("key", 1), ("eval", 125), ("cli", 125), ("signatures", 1), ("nothing", 0)]
)
def test_digests_of_some_images_alone_or_unsigned_are_no_values(
    fails_at: str, code: int, tmp_path: Path
) -> None:
    """With stand-ins for uv, Helm, cosign and buildah; one of them fails."""
    digest = "sha256:" + "a" * 64
    programs(
        tmp_path,
        uv="exit 0",
        # A signed release is built from a commit alone, this test also while somebody works.
        git=f'[ "$1" = status ] || exec {shutil.which("git")} "$@"',
        helm=f"echo Digest: {digest}",
        buildah=f"""case "$*" in
            *push*/{fails_at}:*) echo the registry is away >&2; exit 125 ;;
            *push*) while [ "$1" != --digestfile ]; do shift; done; printf %s {digest} >"$2" ;;
            esac""",
        cosign=f"""case "$1-{fails_at}" in
            import-key-pair-key) echo unsupported private key >&2; exit 1 ;;
            sign-signatures) echo the registry asks who signs >&2; exit 1 ;;
            sign-*) echo "$@" >{tmp_path}/signed ;;
            esac""",
    )
    folder = tmp_path / "a release"
    folder.mkdir()
    (key := tmp_path / "private.pem").touch()
    told = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "UV": "uv", "KEY": str(key)}
    done = release(folder, REGISTRY="registry.example.org/wheels", IMAGES="ingest eval cli", **told)
    dist = folder / "dist"
    assert done.returncode == code, done.stderr
    if fails_at == "key":
        assert done.stderr == "KEY: unsupported private key\n"
        assert (dist / "images.yaml").read_text("utf-8") == "of the release before"
        return
    assert (dist / "images.yaml").exists() == (dist / "SHA256SUMS").exists() == (fails_at == "nothing")
    if fails_at == "nothing":
        image = yaml.safe_load((dist / "images.yaml").read_text("utf-8"))["image"]
        assert image["digests"] == dict.fromkeys(("ingest", "eval", "cli"), digest)
        assert image["repository"] == "registry.example.org/wheels"
        signed = (tmp_path / "signed").read_text("utf-8").split()
        names = ("tunewheel", "ingest", "eval", "cli")
        assert signed[-4:] == [f"{image['repository']}/{name}@{digest}" for name in names]


def test_the_pages_of_a_release_lead_to_each_other_without_the_repository(tmp_path: Path) -> None:
    done = release(tmp_path, UV="true", KEY="", REGISTRY="")
    assert done.returncode == 0, done.stderr
    pages = tmp_path / "dist/pages"
    found = {path: path.read_text("utf-8") for path in pages.rglob("*.md")}
    assert len(found) > 100
    ends = (".md", ".png", ".svg")
    links = [(page, link) for page, text in found.items() for link in re.findall(r"\]\(([^)\s:#]+)", text)]
    assert len(links) > 500
    to_pages = [(page, link) for page, link in links if link.endswith(ends)]
    assert [(page, link) for page, link in to_pages if not (page.parent / link).is_file()] == []
    assert (pages / "examples/helpdesk/project.yaml").is_file()
    assert "  pages/README.md\n" in (tmp_path / "dist/SHA256SUMS").read_text("utf-8")


class Checkout:
    """A small repository with the script of the release, whose other steps are stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "checkout"
        (self.root / "scripts").mkdir(parents=True)
        (self.root / "cli").mkdir()
        shutil.copy(ROOT / "scripts/release.sh", self.root / "scripts")
        (self.root / ".gitignore").write_text("dist\n")
        python = self.root / "scripts/python"
        python.write_text('#!/bin/sh\n[ "$2" = --pack ] && mkdir -p "$3/tunewheel"\n')
        python.chmod(0o755)
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        command = ["git", "-C", str(self.root), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, *subjects: str) -> None:
        for subject in subjects:
            self.git("add", "--all")
            self.git("commit", "-q", "--allow-empty", "-m", f"{subject}\n\nWhy: a body, which is not listed.")

    def notes(self, **by_version: str) -> None:
        sections = [f"## {version}\n\n{text}\n" for version, text in by_version.items()]
        (self.root / "CHANGELOG.md").write_text("\n".join(["# Change log", "", *sections]))

    def release(self, version: str, *, key: str = "") -> subprocess.CompletedProcess[str]:
        told = {"PYTHON": "scripts/python", "UV": "true", "KEY": key, "REGISTRY": "", "OUT": "dist"}
        command = [str(self.root / "scripts/release.sh"), version]
        return subprocess.run(command, env=os.environ | told, capture_output=True, text=True)

    def changes(self, version: str) -> str:
        done = self.release(version)
        assert done.returncode == 0, done.stderr
        assert "  CHANGES.md\n" in (self.root / "dist/SHA256SUMS").read_text("utf-8")
        return (self.root / "dist/CHANGES.md").read_text("utf-8")


def test_a_release_lists_what_was_committed_since_the_tag_before_it_below_its_notes(tmp_path: Path) -> None:
    here = Checkout(tmp_path)
    here.notes(**{"0.1.0, not released yet": "The first one."})
    here.commit("Begin", "Read [what] (is there)")
    first = "# Tunewheel 0.1.0\n\nThe first one.\n\n## Changes\n\n- Read [what] (is there)\n- Begin\n"
    assert here.changes("0.1.0") == first
    here.git("tag", "v0.1.0")
    assert here.changes("0.1.0") == first, "whoever builds it again has its tag"
    notes = "Stop curate first: [how](docs/operations.md#upgrade).\n\n### Upgrade notes\n\n- One.\n- Two."
    here.notes(**{"0.10.0": notes, "0.1.0": "The first one."})
    here.git("checkout", "-q", "-b", "side")
    here.commit("Answer from the side")
    here.git("checkout", "-q", "main")
    here.commit("Answer sooner")
    here.git("merge", "-q", "--no-ff", "-m", "Merge the side", "side")
    here.git("tag", "notes-of-a-meeting")
    here.commit("Write 0.10.0")
    head, listed = here.changes("0.10.0").split("\n## Changes since v0.1.0\n\n")
    assert head == f"# Tunewheel 0.10.0\n\n{notes.replace('[how](docs/operations.md#upgrade)', 'how')}\n"
    assert sorted(listed.splitlines()) == ["- Answer from the side", "- Answer sooner", "- Write 0.10.0"]


def test_a_release_without_notes_or_history_or_under_a_taken_version_is_not_begun(tmp_path: Path) -> None:
    here = Checkout(tmp_path)
    here.notes(**{"0.1.0": "The first one.", "0.2.0": ""})
    here.commit("Begin")
    for version in ("0.2.0", "0.3.0", "0.1", "0.1.01", "0x1.0"):
        assert f"has no section {version}" in here.release(version).stderr
    here.git("tag", "v0.1.0")
    here.commit("Answer sooner")
    done = here.release("0.1.0")
    assert (done.returncode, "has the tag v0.1.0 already" in done.stderr) == (1, True)
    cut = Checkout(tmp_path / "cut")
    shutil.rmtree(cut.root)
    here.git("clone", "-q", "--depth", "1", f"file://{here.root}", str(cut.root))
    done = cut.release("0.1.0")
    assert (done.returncode, "git fetch --unshallow --tags" in done.stderr) == (1, True)
    assert not list(tmp_path.rglob("dist"))


def test_a_release_is_signed_only_as_it_is_committed(tmp_path: Path) -> None:
    here, key = Checkout(tmp_path), tmp_path / "private.pem"
    key.touch()
    (here.root / "pyproject.toml").touch()
    here.notes(**{"0.1.0": "The first one.", "0.2.0": "The second one."})
    here.commit("Begin")
    for name in ("pyproject.toml", "CHANGELOG.md"):
        kept = (here.root / name).read_text("utf-8")
        (here.root / name).write_text(f"{kept}\n")
        for words in (("status",), ("add", "--all")):
            here.git(*words)
            done = here.release("0.2.0", key=str(key))
            assert (done.returncode, f"M {name}" in done.stderr.replace("M  ", "M ")) == (1, True)
            assert not (here.root / "dist").exists()
        (here.root / name).write_text(kept)
        here.git("add", "--all")
    (here.root / "notes-to-myself").touch()
    assert here.release("0.2.0", key=str(key)).returncode == 0


def test_a_version_is_taken_wherever_its_tag_is(tmp_path: Path) -> None:
    here = Checkout(tmp_path)
    here.notes(**dict.fromkeys(("0.1.0", "0.1.1", "0.2.0", "0.3.0"), "Some notes."))
    here.commit("Begin")
    here.git("tag", "v0.1.0")
    here.git("checkout", "-q", "-b", "old")
    here.commit("Mend the first one")
    here.git("tag", "-a", "-m", "with a note", "v0.1.1")
    assert here.changes("0.1.1").endswith("## Changes since v0.1.0\n\n- Mend the first one\n")
    here.git("checkout", "-q", "main")
    here.commit("Answer sooner")
    here.git("tag", "v0.2.0")
    here.git("branch", "v0.3.0")  # a branch of that name takes no version
    here.commit("Go on")
    for version in ("0.1.0", "0.1.1", "0.2.0"):
        assert f"has the tag v{version} already" in here.release(version).stderr
    assert here.changes("0.3.0").endswith("## Changes since v0.2.0\n\n- Go on\n")
