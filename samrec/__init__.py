"""A compact trainer for SASRec and SAMRec."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samrec.config import Config as Config
    from samrec.evaluation import evaluate as evaluate
    from samrec.model import SASRec as SASRec
    from samrec.sam import SAM as SAM
    from samrec.training import train as train

_PUBLIC = {
    "Config": "samrec.config",
    "SAM": "samrec.sam",
    "SASRec": "samrec.model",
    "evaluate": "samrec.evaluation",
    "train": "samrec.training",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used: `landscape --help` must not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'samrec' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
