"""Sharpness-Aware Minimization (Foret et al., ICLR 2021, arXiv 2010.01412), for any torch optimizer."""

from samrec.sam.optimizer import SAM as SAM
from samrec.sam.optimizer import Closure as Closure
from samrec.sam.variants import GSAM as GSAM
from samrec.sam.variants import Friendly as Friendly
from samrec.sam.variants import LookSAM as LookSAM
from samrec.sam.variants import Variant as Variant
