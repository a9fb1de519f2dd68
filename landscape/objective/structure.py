"""Where a parameter stands in a network: its group, and the axes that count its filters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.parametrize import ParametrizationList

Grouping = Callable[[str, nn.Module], str]
"""Maps a parameter's name and the module that holds it to the name of a group."""

ATTENTION = ("attn", "attention")
FFN = ("ffn", "mlp", "feed_forward", "feedforward", "intermediate", "denserelu", "experts")
INNER = ("output", "linear1", "linear2", "lin1", "lin2", "fc1", "fc2")
"""What else the layers of a feed-forward block are called, right within a numbered one."""
HEADS = ("head", "lm_head", "classifier", "fc", "score", "qa_outputs", "pooler", "cls", "predictions")
"""What the last layers are called, as whole names between two dots, with or without a number."""
PARAMETRIZED = ".parametrizations."
"""What torch puts between a module and the tensor of it that is computed from others."""


@dataclass(frozen=True)
class Entry:
    """One parameter tensor.

    Attributes:
        name: as in `named_parameters`; a tied weight has one entry, under its first name.
        shape: shape of the tensor.
        group: `embedding`, `norm`, `attention`, `ffn`, `convolution`, `head` or `other`, see `group_of`.
        filter_axis: the axis that counts filters, or None for a tensor that has none (a bias, a norm's
            scale). A filter is everything at one index of it: an output unit of a linear or convolution
            layer, an item of an embedding (Li et al. 2018, section 4).
        blocks: number of groups of a transposed convolution, whose inputs are dealt to them along axis 0:
            a filter is then everything at one index of the axis in one group. Else 1.
    """

    name: str
    shape: torch.Size
    group: str
    filter_axis: int | None
    blocks: int = 1

    def blocked(self, tensor: Tensor) -> Tensor:
        """View a tensor of this shape with the axes that `counting` numbers."""
        if self.blocks == 1:
            return tensor.view(self.shape)
        return tensor.view(self.blocks, self.shape[0] // self.blocks, *self.shape[1:])

    @property
    def counting(self) -> tuple[int, ...]:
        """The axes of `blocked` that count filters: none, one, or the groups and one."""
        if self.filter_axis is None:
            return ()
        return (self.filter_axis,) if self.blocks == 1 else (0, self.filter_axis + 1)


def owners(model: nn.Module) -> dict[str, nn.Module]:
    """Map each parameter's name to the module that holds it, or of whose weight it is the original.

    The magnitudes of a weight norm belong to the norm.
    """
    modules = dict(model.named_modules())
    found = {}
    for prefix, module in modules.items():
        for name, _ in module.named_parameters(recurse=False):
            holder = module
            if isinstance(module, ParametrizationList):
                magnitudes = name == "original0" and is_norm(module[0])
                holder = module[0] if magnitudes else modules[f".{prefix}".rpartition(PARAMETRIZED)[0][1:]]
            found[f"{prefix}.{name}" if prefix else name] = holder
    return found


def group_of(name: str, holders: Mapping[str, nn.Module]) -> str:
    """Name the group of a parameter, by the module that holds it and by the usual names of modules.

    They are those of torchvision's and Hugging Face's models (GPT-2, Llama, BERT, ViT, ResNet, VGG) and of
    `nn.Transformer`.

    Args:
        name: name of the parameter.
        holders: as `owners` returns it.
    """
    holder = holders[name]
    path = name.lower().split(".")[:-1]
    rules = {
        "embedding": isinstance(holder, nn.Embedding | nn.EmbeddingBag),
        "norm": is_norm(holder),
        "attention": any(word in part for part in path for word in ATTENTION),
        "ffn": any(word in part for part in path for word in FFN) or _is_feed_forward(path),
        "convolution": isinstance(holder, _ConvNd),
        "head": any(part.rstrip("0123456789") in HEADS for part in path),
        "other": "embed" not in name.lower(),
    }
    return next((group for group, holds in rules.items() if holds), "embedding")


def filter_axis_of(name: str, tensor: Tensor, holder: nn.Module) -> int | None:
    """Return the axis of a parameter that counts the outputs of the module that holds it, or None."""
    leaf = name.rpartition(".")[2]
    bias = leaf == "bias" or leaf.startswith("bias_") or leaf.endswith("_bias")  # such as attention's bias_k
    magnitude = leaf.endswith("_g") and hasattr(holder, f"{leaf[:-1]}v")  # of torch's older weight norm
    if tensor.dim() < 2 or is_norm(holder) or bias or magnitude:
        return None
    if isinstance(holder, _ConvTransposeNd):
        return 1
    return 1 if tensor.dim() == 2 and _multiplies_from_the_right(tensor, holder) else 0


def blocks_of(holder: nn.Module) -> int:
    """Return the groups of a transposed convolution; 1 for any other module."""
    return holder.groups if isinstance(holder, _ConvTransposeNd) else 1


def is_norm(module: nn.Module) -> bool:
    """Tell a norm by its class: torch's, or what another library calls one, such as `LlamaRMSNorm`."""
    named = type(module).__name__.lower().rstrip("0123456789d")
    return named.endswith("norm") and not isinstance(module, nn.Linear | _ConvNd)


def _multiplies_from_the_right(tensor: Tensor, holder: nn.Module) -> bool:
    """Tell whether a layer is x W + b, so that outputs are columns, as in Hugging Face's `Conv1D`.

    Torch's own layers are x Wᵀ + b. The bias of others tells, where W is not square.
    """
    if type(holder).__name__ == "Conv1D":
        return True
    if any(k.__module__.startswith("torch.nn.modules.") for k in type(holder).__mro__ if k is not nn.Module):
        return False
    bias = getattr(holder, "bias", None)
    alone = sum(p.dim() == 2 for p in holder.parameters(recurse=False)) == 1
    return isinstance(bias, Tensor) and alone and bias.shape == tensor.shape[1:] != tensor.shape[:1]


def _is_feed_forward(path: list[str]) -> bool:
    """Tell what BERT calls `layer.0.output.dense`, torch `layers.0.linear1`, and OPT `layers.0.fc1`."""
    layer, inner = (["", "", *path] if path[-1:] != ["dense"] else ["", "", *path[:-1]])[-2:]
    return layer.isdigit() and inner in INNER
