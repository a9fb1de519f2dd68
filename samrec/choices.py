"""What settings may be, and the metrics: for the configuration, and for the command line's help.

Imports nothing heavy, so that the command line can show them at once.
"""

from typing import Literal

CUTOFFS = (5, 10, 20)
METRICS = (*(f"{name}@{k}" for name in ("hr", "ndcg") for k in CUTOFFS), "mrr")
"""The ranking metrics that tables show."""
VALIDATED = "ndcg@10"
"""The metric by which a run's best epoch is chosen."""

Format = Literal["auto", "sequences", "pairs", "table"]
Method = Literal["sasrec", "samrec", "cl4srec", "s3rec", "s3rec-pretraining", "gru4rec", "bert4rec"]
Loss = Literal["bce", "gbce", "sampled", "ce"]
Preset = Literal["sasrec", "sasrec-original", "sasrec-bert"]
Norm = Literal["original", "pre", "post"]
Activation = Literal["relu", "gelu"]
Init = Literal["normal", "xavier"]
Positions = Literal["start", "end"]
Schedule = Literal["constant", "linear", "cosine"]
Perturb = Literal["all", "no-embedding", "norm-only"]
Ascent = Literal["batch", "micro-batch", "rank"]
Precision = Literal["float32", "bf16"]
Sampled = Literal["uni100", "pop100"]
Log = Literal["tensorboard", "wandb", "mlflow"]

OF_READING = (
    "format",
    "columns",
    "separator",
    "quote",
    "encoding",
    "time_format",
    "min_rating",
    "drop_missing",
    "deduplicate",
    "core",
)
"""The settings of how a file of interactions is read."""

SYNONYMS = {
    "learning_rate": "lr",
    "hidden_size": "dim",
    "hidden_dim": "dim",
    "hidden_units": "dim",
    "embedding_size": "dim",
    "n_layers": "layers",
    "num_layers": "layers",
    "num_blocks": "layers",
    "n_heads": "heads",
    "num_heads": "heads",
    "inner_size": "expansion",
    "hidden_dropout_prob": "dropout",
    "attn_dropout_prob": "dropout",
    "dropout_rate": "dropout",
    "hidden_act": "activation",
    "max_item_list_length": "max_length",
    "max_seq_length": "max_length",
    "maxlen": "max_length",
    "train_batch_size": "batch_size",
    "loss_type": "loss",
    "num_epochs": "epochs",
    "eval_step": "eval_every",
    "stopping_step": "patience",
    "l2_emb": "weight_decay",
    "model": "method",
    "dataset": "data",
}
"""What RecBole and the releases of SASRec call settings, and their names here."""
