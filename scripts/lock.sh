#!/bin/sh
# Pin every dependency, with hashes and without naming an index: requirements.lock for the whole
# workspace, services/<name>/requirements.lock for each service alone and cli/requirements.lock for the command,
# subsets of the former. Extras are
# locked too, so that what a service can be asked to do needs no package from outside its lock. vLLM has a lock
# of its own, because its build for processors pins another torch, and so has what builds llama.cpp.
# Versions already locked are kept; pass --upgrade (or --upgrade-package NAME) for newer ones.
set -eu
cd "$(dirname "$0")/.."
uv="${UV:-uv}"

flags="--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet"
for project in contracts client wheel runtime basemodel generation outputs redaction embedding retrieval planner local cli demo services/*; do
    flags="$flags --no-emit-package tunewheel-$(basename "$project")"
done

# shellcheck disable=SC2086  # the flags are words
$uv pip compile pyproject.toml contracts/pyproject.toml client/pyproject.toml wheel/pyproject.toml runtime/pyproject.toml basemodel/pyproject.toml \
    generation/pyproject.toml outputs/pyproject.toml redaction/pyproject.toml \
    embedding/pyproject.toml retrieval/pyproject.toml planner/pyproject.toml services/*/pyproject.toml local/pyproject.toml cli/pyproject.toml demo/pyproject.toml --group dev --all-extras $flags "$@" -o requirements.lock
echo "requirements.lock"

for alone in services/* cli; do
    # shellcheck disable=SC2086
    $uv pip compile "$alone/pyproject.toml" --all-extras --constraints requirements.lock $flags \
        -o "$alone/requirements.lock"
    echo "$alone/requirements.lock"
done

# The train service whose runs are Jobs: without the extras.
# shellcheck disable=SC2086
$uv pip compile services/train/pyproject.toml --constraints requirements.lock $flags -o services/train/launcher.lock
echo "services/train/launcher.lock"

# From its folder: uv reads the overrides of the project that it is started in.
# shellcheck disable=SC2086
$uv pip compile --directory deploy/vllm pyproject.toml $flags "$@" -o requirements.lock
echo "deploy/vllm/requirements.lock"

# shellcheck disable=SC2086
$uv pip compile deploy/llama-cpp/tools.in $flags "$@" -o deploy/llama-cpp/tools.lock
# shellcheck disable=SC2086
$uv pip compile --no-deps deploy/llama-cpp/source.in $flags -o deploy/llama-cpp/source.lock
echo "deploy/llama-cpp"
