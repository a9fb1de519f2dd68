"""What settings with names may be: for the configuration, and for the command line's help.

Imports nothing heavy, so that the command line can show them at once.
"""

from typing import Literal

Format = Literal["auto", "sequences", "pairs", "table"]
Method = Literal["sasrec", "samrec", "cl4srec", "s3rec", "s3rec-pretraining", "gru4rec"]
Loss = Literal["bce", "gbce", "sampled", "ce"]
Preset = Literal["sasrec", "sasrec-original", "sasrec-bert"]
Norm = Literal["pre", "post", "original"]
Activation = Literal["relu", "gelu"]
Init = Literal["normal", "xavier"]
Positions = Literal["start", "end"]
Schedule = Literal["constant", "linear", "cosine"]
Perturb = Literal["all", "no-embedding", "norm-only"]
Ascent = Literal["batch", "micro-batch", "rank"]
Precision = Literal["float32", "bf16"]
