"""A compact trainer for SASRec, SAMRec, CL4SRec, S3Rec, BERT4Rec and GRU4Rec."""

from typing import TYPE_CHECKING

from landscape.runtime.lazy import attributes

if TYPE_CHECKING:
    from samrec.config import Config as Config
    from samrec.evaluation import evaluate as evaluate
    from samrec.model import SASRec as SASRec
    from samrec.recommendation import recommend as recommend
    from samrec.sam import SAM as SAM
    from samrec.training.loop import train as train

_PUBLIC = {
    "Config": "samrec.config",
    "SAM": "samrec.sam",
    "SASRec": "samrec.model",
    "evaluate": "samrec.evaluation",
    "recommend": "samrec.recommendation",
    "train": "samrec.training.loop",
}
__all__ = list(_PUBLIC)
__getattr__, __dir__ = attributes(__name__, _PUBLIC)
