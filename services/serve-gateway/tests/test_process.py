from __future__ import annotations

import subprocess
import sys

BANNED = ("torch", "transformers", "peft", "trl", "numpy")


def test_the_gateways_process_holds_no_torch():
    code = (
        "import sys, tunewheel_serve_gateway.main as m;"
        "from tunewheel_serve_gateway.settings import Settings;"
        "m.make_app(Settings(store_url='memory://', engine_protocol='tgi'));"
        f"print([n for n in {BANNED!r} if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr


def test_open_to_the_network_without_keys_does_not_start():
    code = "from tunewheel_serve_gateway.main import main; main()"
    env = {"TUNEWHEEL_HTTP_HOST": "0.0.0.0", "TUNEWHEEL_STORE_URL": "memory://", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env=env
    )
    assert done.returncode == 2
    assert "TUNEWHEEL_API_KEYS_FILE" in done.stderr
