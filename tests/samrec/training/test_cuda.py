"""Every method trains alike on a GPU and on a CPU. Skips, saying so, where there is no GPU."""

import pytest
import torch

from samrec.config import Config
from samrec.training.log import read_log
from samrec.training.loop import train
from tests.samrec.training.test_waits import METHODS, named

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]
SMALL = {"dim": 8, "max_length": 8, "batch_size": 16, "epochs": 2, "eval_every": 1, "dropout": 0.3}
VARIANTS = [
    {"method": "samrec", "adaptive": True},
    {"method": "samrec", "every": 2},
    {"method": "samrec", "micro_batches": 2},
    {"method": "samrec", "clip": 0.1, "lr_schedule": "cosine", "weight_decay": 0.1},
    {"method": "sasrec", "preset": "sasrec-bert"},
    {"method": "sasrec", "monitor": 1},
]


@pytest.mark.filterwarnings("ignore:no attributes file")
@pytest.mark.parametrize("settings", [*METHODS, *VARIANTS], ids=named)
def test_a_method_trains_alike(settings, data_file, tmp_path):
    losses = []
    for device in ("cpu", "cuda"):
        config = Config(data=str(data_file), **SMALL | settings)
        lines = read_log(train(config, tmp_path / device, device).out / "metrics.jsonl")
        losses.append([line["loss"] for line in lines if "loss" in line])
    assert len(losses[0]) == SMALL["epochs"]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
