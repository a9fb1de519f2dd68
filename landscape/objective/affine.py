"""Whether outputs are piecewise affine in each tensor of weights, as the graph that made them shows."""

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

from torch import Tensor
from torch.autograd.graph import Node

# Names of operations' nodes; no function of somebody's own ends with a number.
# Affine in all inputs together, or piecewise so:
LINEAR = re.compile(
    r"""(Add|Sub|Rsub|Neg|Sum|Mean|Cumsum|Clone|ToCopy|Gather|Embedding|Index|IndexSelect|MaskedFill|MaskedSelect
    |View|UnsafeView|ReshapeAlias|Alias|T|Transpose|Permute|Expand|Repeat|Slice|Select|Squeeze|Unsqueeze|Diagonal
    |Cat|Stack|(Unsafe)?Split(WithSizes)?|Unbind|Flip|Roll|Unfold|Im2Col|Col2Im|PixelShuffle|PixelUnshuffle
    |ConstantPadNd|(Reflection|Replication)Pad[123]D|(Adaptive)?(Avg|Max)Pool[23]D(WithIndices)?
    |Upsample(Nearest|Linear|Bilinear|Bicubic|Trilinear)[123]D
    |Relu|LeakyRelu|Hardtanh|Hardshrink|Softshrink|Hardsigmoid|Threshold|Abs|Clamp|ClampMin|ClampMax
    |Maximum|Minimum|Max|Min|Amax|Amin|Where|Sort|Topk)Backward\d+""",
    re.VERBOSE,
)
# Affine in each input while the others stand still; BatchNorm is with kept statistics:
MULTILINEAR = re.compile(
    r"(Mul|Mm|Mv|Dot|Bmm|Addmm|Addmv|Baddbmm|Addbmm|Addcmul|Linear|Convolution|ThnnConv2D|PreluKernel)Backward\d+"
)
NORMALIZING = re.compile(r"(Native|Cudnn|Miopen)BatchNormBackward\d+")


def affine_in_each(outputs: Tensor, leaves: Sequence[Tensor]) -> bool:
    """Tell whether outputs are piecewise affine in each leaf while the others stand still.

    So they are in each tensor of weights of a network of layers that are linear in their weights and whose
    activations are piecewise linear (ReLU, maxima), with BatchNorm's kept statistics: not where one tensor
    stands twice in a product, as in two layers with shared weights or in attention. An operation that is not
    known here counts as another function.

    Args:
        outputs: computed from the leaves, with their graph.
    """
    if outputs.grad_fn is None:
        return True
    bits = {id(leaf): 1 << number for number, leaf in enumerate(leaves)}
    read: dict[Node, int] = {}  # which leaves each node depends on, a bit each
    waiting = [outputs.grad_fn]
    while waiting:
        node = waiting[-1]
        inputs = [before for before, _ in node.next_functions if before is not None]
        if unread := [before for before in inputs if before not in read]:
            waiting += unread
            continue
        waiting.pop()
        own = bits.get(id(getattr(node, "variable", None)), 0)
        if inputs and not _keeps(node, read):
            return False
        for before in inputs:
            own |= read[before]
        read[node] = own
    return True


def _keeps(node: Node, read: Mapping[Node, int]) -> bool:
    """Tell whether what is affine in each leaf before an operation is so after it."""
    inputs = [0 if before is None else read[before] for before, _ in node.next_functions]
    name = node.name()
    if name.startswith("AbsBackward") and _of_complex(node):  # the root of a sum of squares
        return not any(inputs)
    if not any(inputs) or LINEAR.fullmatch(name):
        return True
    if name.startswith("DivBackward"):
        return not any(inputs[1:])
    kept = NORMALIZING.fullmatch(name) and getattr(node, "_saved_training", True) is False
    together: int = reduce(or_, inputs)
    return bool(kept or MULTILINEAR.fullmatch(name)) and together.bit_count() == sum(
        map(int.bit_count, inputs)
    )


def _of_complex(node: Node) -> bool:
    saved = getattr(node, "_saved_self", None)
    return isinstance(saved, Tensor) and saved.is_complex()
