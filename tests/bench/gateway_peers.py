"""Other gateways, each installed from PyPI into an environment of its own below ``var/bench``.

LiteLLM's proxy runs as its pages advise for production: one worker, no debug log, no database, and a master
key, so that it asks who calls. TensorZero's gateway is Rust; its package starts the same HTTP server inside a
Python process that then only waits. It has no database to write what it saw to.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / "var" / "bench" / "peers"
PACKAGES = {
    "litellm": ("litellm[proxy]==1.108.7", "uvloop"),
    "tensorzero": ("tensorzero==2026.6.0", "openai"),
}

LITELLM = """
model_list:
  - model_name: bench
    litellm_params: {{model: openai/any/model, api_base: "{engine}/v1", api_key: none}}
litellm_settings: {{telemetry: false, num_retries: 0, request_timeout: 300}}
general_settings: {{master_key: {key}}}
"""
TENSORZERO = """
[gateway]
observability.enabled = false

[models.bench]
routing = ["stub"]

[models.bench.providers.stub]
type = "openai"
model_name = "any/model"
api_base = "{engine}/v1/"
api_key_location = "none"
"""
TENSORZERO_PROCESS = """
import signal, sys
from openai import OpenAI
from tensorzero import patch_openai_client
client = OpenAI(api_key="none")
patch_openai_client(client, config_file=sys.argv[1], clickhouse_url=None, async_setup=False)
print(client.base_url, flush=True)
signal.pause()
"""


def python_of(peer: str) -> Path:
    """Return the Python of ``peer``'s environment; it is made where it is missing."""
    home = ROOT / peer
    python, stamp = home / "bin" / "python", home / "installed"
    wanted = " ".join(PACKAGES[peer])
    if not stamp.exists() or stamp.read_text() != wanted:
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[peer]], check=True)
        stamp.write_text(wanted)
    return python


def versions() -> dict[str, str]:
    """Return the version of each peer that is installed."""
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    found: dict[str, str] = {}
    for peer in PACKAGES:
        python = ROOT / peer / "bin" / "python"
        if python.exists():
            done = subprocess.run([python, "-c", code, peer], check=True, capture_output=True, text=True)
            found[peer] = done.stdout.strip()
    return found


def litellm_command(folder: Path, *, engine: str, port: int, key: str) -> list[str]:
    config = folder / "litellm.yaml"
    config.write_text(LITELLM.format(engine=engine, key=key))
    program = python_of("litellm").with_name("litellm")
    listen = ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    return [str(program), "--config", str(config), *listen]


def tensorzero_command(folder: Path, *, engine: str) -> list[str]:
    """The process prints the address that it takes."""
    config = folder / "tensorzero.toml"
    config.write_text(TENSORZERO.format(engine=engine))
    return [str(python_of("tensorzero")), "-c", TENSORZERO_PROCESS, str(config)]


if __name__ == "__main__":
    for name in sys.argv[1:] or PACKAGES:
        print(python_of(name))
