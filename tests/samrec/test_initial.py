"""What weights begin with: by their documentation, of every method, parameter by parameter."""

import json

import pytest
import torch
from torch import nn

from samrec.config import Config
from samrec.methods import initial_learner

SETTINGS = [
    {"method": "sasrec"},
    {"method": "sasrec", "preset": "sasrec-bert"},
    {"method": "sasrec", "preset": "sasrec-original"},
    {"method": "cl4srec"},
    {"method": "bert4rec"},
    {"method": "gru4rec"},
    {"method": "s3rec-pretraining"},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_weights_begin_as_documented(split, tmp_path, settings):
    """Tables, tokens and normal weights from N(0, 0.02²), Xavier's from U(±√(6 / (in + out))), biases at 0.

    Attributes begin at their log-odds; of a GRU each gate's matrix is one of its own.
    """
    config = Config(data="", dim=128, **settings)
    if settings["method"] == "s3rec-pretraining":
        path = tmp_path / "attributes.json"
        path.write_text(
            json.dumps({item: [item % 3, 5 + item % 7] for item in range(1, split.num_items + 1)})
        )
        config = config.model_copy(update={"attributes": str(path)})
    learner = initial_learner(config, split)
    norms = {f"{name}." for name, module in learner.named_modules() if isinstance(module, nn.LayerNorm)}
    for name, p in learner.named_parameters():
        if name == "attributes.bias":
            odds = (learner.attributes.of_item[..., None] == torch.arange(len(p))).sum((0, 1)) + 0.5
            expected = (odds / (split.num_items + 1 - odds)).log()
            torch.testing.assert_close(p.detach(), expected.to(p.dtype))
        elif name.endswith("bias"):
            assert not p.any(), name
        elif any(name.startswith(norm) for norm in norms):
            assert (p == 1).all(), name
        else:
            gru = settings["method"] == "gru4rec"
            linear = p.dim() == 2 and not name.endswith(("item.weight", "position.weight", "embedding"))
            uniform = linear and (gru or config.init == "xavier")
            pieces = p.detach().chunk(3 if uniform and ".layers." in name else 1)
            for piece in pieces:
                deviation = (2 / sum(piece.shape)) ** 0.5 if uniform else 0.02
                count = piece.numel()
                assert float(piece.mean().abs()) < 4 * deviation / count**0.5, name
                assert float(piece.std()) == pytest.approx(deviation, rel=4 / count**0.5), name
                far = float(piece.abs().max()) / deviation
                assert (far <= 3**0.5 + 1e-6) == uniform or count < 256, name
