#!/usr/bin/env bash
# Hold real vLLM to the engine's conformance suite. Installs 6 GB into var/vllm on first use; starts in minutes.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
here="$root/var/vllm"
port=${VLLM_PORT:-8123}
uv=${UV:-uv}
model=HuggingFaceTB/SmolLM2-135M-Instruct
cache=${TUNEWHEEL_CACHE_DIR:-}

mkdir -p "$here/adapters"
if [ ! -e "$here/.installed" ] || [ "$root/deploy/vllm/pyproject.toml" -nt "$here/.installed" ]; then
    "$uv" venv --quiet --allow-existing --python '>=3.11,<3.14' "$here/venv"
    VIRTUAL_ENV="$here/venv" "$uv" pip install --quiet -r "$root/deploy/vllm/pyproject.toml" \
        --overrides <(printf 'torch==2.13.0\ntorchvision==0.28.0\n')
    touch "$here/.installed"
fi

base=$("$root/.venv/bin/python" - "$model" "$cache" <<'PY'
import sys
from pathlib import Path
from platformdirs import user_cache_path
from tunewheel_basemodel.locate import locate_base_model
print(locate_base_model(sys.argv[1], cache_dir=Path(sys.argv[2] or user_cache_path("tunewheel"))).path)
PY
)

export VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-2}
"$here/venv/bin/python" -m vllm.entrypoints.openai.api_server --model "$base" --served-model-name "$model" \
    --dtype float32 --max-model-len 2048 --enable-lora --max-loras 4 --max-lora-rank 16 \
    --host 127.0.0.1 --port "$port" >"$here/server.log" 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null || true' EXIT

echo "starting vLLM (log: var/vllm/server.log) …"
for _ in $(seq 600); do
    kill -0 "$server" 2>/dev/null || { tail -n 40 "$here/server.log"; echo "vLLM stopped while it started"; exit 1; }
    curl -fs "http://127.0.0.1:$port/health" >/dev/null && break
    sleep 1
done

TUNEWHEEL_ENGINE_URL="http://127.0.0.1:$port" TUNEWHEEL_ENGINE_MODEL="$model" \
    TUNEWHEEL_ENGINE_ADAPTERS="$here/adapters" "$root/.venv/bin/python" -m pytest -q "$root/tests/engine" "$@"
