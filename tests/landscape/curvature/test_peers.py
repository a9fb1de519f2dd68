"""The eigenvalues of three other packages, each on the example model of its own documentation.

They come with `pip install -e '.[peers]'`; where they are missing, the tests are skipped and say so.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll

TOP = 3


class Residual(nn.Module):
    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.first_norm = nn.BatchNorm2d(outside)
        self.second = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.second_norm = nn.BatchNorm2d(outside)
        self.pad = outside - inside

    def forward(self, x):
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        if self.pad:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad // 2, self.pad // 2))
        return F.relu(x + y)


def resnet(width: int, stages: int, blocks: int) -> nn.Sequential:
    """The ResNets of CIFAR (He et al. 2016); their own width is 16."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inside = width
    for stage in range(stages):
        outside = width * 2**stage
        for block in range(blocks):
            layers.append(Residual(inside, outside, 2 if stage and not block else 1))
            inside = outside
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 3, 32, 32), torch.randint(10, (count,))


def ours(model, data, criterion):
    return ll.top_eigenpairs(ll.supervised(model, [data], criterion), k=TOP, tol=1e-5).eigenvalues


def warmed(model, data, criterion):
    """Let BatchNorm see the data, and the weights leave their start."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(10):
        optimizer.zero_grad()
        criterion(model(data[0]), data[1]).backward()
        optimizer.step()
    return model.eval()


@pytest.mark.filterwarnings("ignore:Using backward")
def test_pyhessian_on_a_resnet20():
    pyhessian = pytest.importorskip("pyhessian", reason="PyHessian is not installed: extra [peers]")
    torch.manual_seed(0)
    data = images(16)
    model = warmed(resnet(width=8, stages=3, blocks=3), data, F.cross_entropy)
    peer = pyhessian.hessian(model, nn.CrossEntropyLoss(), data=data, cuda=False)
    theirs, _ = peer.eigenvalues(maxIter=1000, tol=1e-7, top_n=TOP)
    torch.testing.assert_close(
        torch.tensor(theirs), torch.tensor(ours(model, data, F.cross_entropy)).float(), rtol=1e-3, atol=0
    )


def test_hessian_eigenthings_on_a_resnet18():
    pytest.importorskip("hessian_eigenthings", reason="hessian-eigenthings is not installed: extra [peers]")
    from hessian_eigenthings import HessianOperator, lanczos, supervised_loss

    torch.manual_seed(0)
    data = images(16)
    model = warmed(resnet(width=8, stages=4, blocks=2), data, F.cross_entropy)
    operator = HessianOperator(model, [data], supervised_loss(nn.CrossEntropyLoss()))
    theirs = lanczos(operator, k=TOP, max_iter=60, tol=1e-5, which="LA", reorthogonalize=True, seed=0)
    found = ours(model, data, F.cross_entropy)
    torch.testing.assert_close(theirs.eigenvalues, torch.tensor(found).float(), rtol=1e-3, atol=0)


def test_curvlinops_on_its_multilayer_perceptron():
    curvlinops = pytest.importorskip("curvlinops", reason="curvlinops is not installed: extra [peers]")
    from scipy.sparse.linalg import eigsh

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 5), nn.Sigmoid(), nn.Linear(5, 3))
    data = torch.rand(20, 7), torch.rand(20, 3)
    peer = curvlinops.HessianLinearOperator(model, nn.MSELoss(), list(model.parameters()), [data])
    theirs = eigsh(peer.to_scipy(), k=TOP, which="LA", return_eigenvectors=False)[::-1].copy()
    found = torch.tensor(ours(model, data, F.mse_loss)).float()
    torch.testing.assert_close(torch.from_numpy(theirs).float(), found, rtol=1e-3, atol=0)
