"""A checkpoint comes back as it was written; torch's own reader is the oracle."""

from collections import OrderedDict

import pytest
import torch

import landscape as ll
from landscape.storage.checkpoints import read_checkpoint, write_checkpoint

COMPLEX = torch.tensor([1 + 2j, 3 - 4j, 5j])
PLAIN = {
    "numbers": [0, -1, 2**31, 10**30, 0.1, float("inf"), True, None],
    "text": ["", "é漢", "x" * 10**5],
    "deep": {1: {"a": (1, (2, [3, {}]))}, 0.5: (), None: []},
    "dtype": torch.bfloat16,
    "size": torch.Size((2, 3)),
    "ordered": OrderedDict(b=1, a=2),
}
TENSORS = {
    "scalar": torch.tensor(3),
    "empty": torch.empty(0, 10**6),
    "strided": torch.arange(24).view(2, 3, 4).permute(2, 0, 1)[1:, :, ::2],
    "conjugate": COMPLEX.conj(),
    "negative": COMPLEX.clone().conj().imag,
    "parameter": torch.nn.Parameter(torch.ones(2, 3)),
    "unsigned": torch.arange(256).to(torch.uint16),
    "half": torch.ones(3, dtype=torch.bfloat16),
}


def equal(a, b):
    """Whether two trees are the same; in the order of their entries too."""
    if isinstance(b, torch.Tensor):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and torch.equal(a, b)
    if isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[key], b[key]) for key in b)
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("content", [PLAIN, TENSORS, {"a": [PLAIN, {"b": TENSORS}]}], ids=range(3))
def test_it_reads_what_torch_reads(content, tmp_path):
    write_checkpoint(content, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    assert equal(found, torch.load(tmp_path / "a.pt", weights_only=True))
    assert equal(found, content)


def test_tensors_that_share_their_numbers_share_them_again(tmp_path):
    table = torch.arange(6.0)
    write_checkpoint({"whole": table, "rows": table.view(2, 3), "other": table.clone()}, tmp_path / "a.pt")
    found = read_checkpoint(tmp_path / "a.pt")
    found["whole"][4] = 9
    assert found["rows"][1, 1] == 9
    assert found["other"][4] == 4


def test_files_of_many_tensors(tmp_path):
    whole = torch.arange(15_000.0)
    write_checkpoint({f"layers.{n}.scale": whole[n] for n in range(15_000)}, tmp_path / "a.pt")
    assert torch.equal(torch.stack(list(ll.weights_of(tmp_path / "a.pt").values())), whole)


@pytest.mark.parametrize("value", [1j, b"x", {1}, torch.device("cpu"), {(1, 2): 3}, torch.eye(2).to_sparse()])
def test_what_is_no_plain_value_is_refused(value, tmp_path):
    torch.save({"a": value}, tmp_path / "a.pt")
    with pytest.raises(ll.InputError, match="more than tensors and plain values"):
        read_checkpoint(tmp_path / "a.pt")
