"""On what a measurement ran."""

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch


def where() -> dict[str, Any]:
    """Say on what this ran."""
    try:
        command = ["git", "rev-parse", "--short", "HEAD"]
        commit = subprocess.check_output(command, text=True, cwd=Path(__file__).parent).strip()
    except (OSError, subprocess.CalledProcessError):  # no git, or no history
        commit = None
    model = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    return {
        "commit": commit,
        "cpu": model,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "day": time.strftime("%Y-%m-%d"),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
