"""What stands for a command of the train image: ``python container.py MODULE [ARGUMENT]``. Two things differ
from the command itself: runs are trained by the light worker, and a service account's files lie where
``SERVICE_ACCOUNT`` says.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from kubernetes_asyncio.config import incluster_config
from tunewheel_train.runs import process

LIGHT_WORKER = Path(__file__).resolve().parents[2] / "services" / "train" / "tests" / "light_worker.py"

if __name__ == "__main__":
    account = Path(os.environ["SERVICE_ACCOUNT"])
    incluster_config.SERVICE_TOKEN_FILENAME = str(account / "token")
    incluster_config.SERVICE_CERT_FILENAME = str(account / "ca.crt")
    process.WORKER = (sys.executable, str(LIGHT_WORKER))  # before what takes it as a default is imported
    _, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    importlib.import_module(module).main()
