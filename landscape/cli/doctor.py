"""`landscape doctor`: what this installation consists of."""

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

from landscape.cli.options import Json
from landscape.cli.output import show
from landscape.runtime.table import Table

PACKAGE = "samrec-landscape"
CORE = ("numpy", "scipy", "matplotlib", "plotly", "polars")
HIDDEN = ("all", "test", "docs", "peers")
"""Extras that are not listed: `all` repeats others, and the rest is for people who change the package."""


def command(json: Json = False) -> None:
    """Print versions, devices, threads, free memory and which optional packages are installed.

    Put this into a bug report.

    Examples:

      landscape doctor

      landscape doctor --json > doctor.json
    """
    import torch

    from landscape.runtime.devices import cores, device_named, free_memory

    device = device_named("auto")
    found = {
        "landscape": version(PACKAGE),
        "python": platform.python_version(),
        "system": platform.platform(),
        "torch": torch.__version__,  # its metadata may lack the build, such as +cu130
        **{name: _version(name) for name in CORE},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "free_memory": free_memory(device),
    }
    rows = [[name.replace("_", " "), _written(name, value)] for name, value in found.items()]
    known = _extras()
    extras = [
        ["" if number else name, package, found_version or "missing"]
        for name, packages in known.items()
        for number, (package, found_version) in enumerate(packages.items())
    ]
    show(
        json,
        found | {"extras": known},
        Table("", ["", ""], rows),
        Table("Extras", ["extra", "package", "version"], extras),
    )


def _extras() -> dict[str, dict[str, str | None]]:
    """Return the packages of each extra, with their installed versions."""
    found: dict[str, dict[str, str | None]] = {}
    for requirement in requires(PACKAGE) or ():
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name and extra and extra[1] not in HIDDEN and name[0] != PACKAGE:
            found.setdefault(extra[1], {})[name[0]] = _version(name[0])
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _written(name: str, value: object) -> str:
    if value is None:
        return "none" if name == "cuda" else "not installed"
    return f"{value / 2**30:.1f} GiB" if name == "free_memory" and isinstance(value, int) else str(value)
