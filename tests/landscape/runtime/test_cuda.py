"""The same numbers on a GPU. Skips, saying so, where there is none."""

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.surface.strategies import strategies
from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.config import Config
from samrec.evaluation import metrics
from samrec.task import objective, ranking
from samrec.training.loop import train

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device"),
]


@pytest.fixture(scope="module")
def checkpoint(data_file, tmp_path_factory):
    config = Config(
        data=str(data_file), dim=8, max_length=8, batch_size=16, epochs=4, eval_every=2, method="samrec"
    )
    return train(config, tmp_path_factory.mktemp("cuda") / "run", "cuda").out / "best.pt"


@pytest.fixture(scope="module")
def objectives(checkpoint):
    """The frozen loss on both devices: the same users and negatives."""
    return [objective(checkpoint, TaskOptions(device=device)) for device in ("cpu", "cuda")]


def test_a_trained_model_ranks_alike(checkpoint):
    on_cpu, on_gpu = (metrics(ranking(checkpoint, "test", device=device).ranks) for device in ("cpu", "cuda"))
    for name, value in on_cpu.items():
        assert value == pytest.approx(on_gpu[name], abs=0.02)


def test_weights_stay_on_the_gpu(objectives):
    assert objectives[1].theta.is_cuda
    assert objectives[1].hvp(objectives[1].theta).is_cuda


def test_the_loss_and_its_derivatives_are_the_same(objectives):
    on_cpu, on_gpu = objectives
    assert on_cpu.value() == pytest.approx(on_gpu.value(), rel=1e-5)
    for a, b in ((on_cpu.grad(), on_gpu.grad()), (on_cpu.hvp(on_cpu.theta), on_gpu.hvp(on_gpu.theta))):
        torch.testing.assert_close(a, b.cpu(), rtol=1e-3, atol=1e-5)


def test_measurements_are_the_same(objectives):
    planes, tops, traces, rises = zip(
        *(
            (
                ll.plane(o, grid=3).losses,
                ll.top_eigenpairs(o, 2, tol=1e-4).eigenvalues,
                ll.trace(o, probes=4).samples,
                ll.sharpness(o, ["sam", "average"]).measures["sam"].value,
            )
            for o in objectives
        ),
        strict=True,
    )
    np.testing.assert_allclose(planes[0], planes[1], rtol=1e-4)
    np.testing.assert_allclose(tops[0], tops[1], rtol=1e-3)
    np.testing.assert_allclose(traces[0], traces[1], rtol=1e-3, atol=1e-3)
    assert rises[0] == pytest.approx(rises[1], rel=1e-2)


def test_eigenvalues_are_the_same_by_every_method_and_strategy(objectives):
    on_cpu, on_gpu = objectives
    expected = ll.top_eigenpairs(on_cpu, 3, tol=1e-4)
    for strategy in ("reverse", "forward"):
        operator = ll.hessian(on_gpu, strategy)
        for settings in ({"block": 1}, {"block": 4}, {"basis": 0}):
            found = ll.top_eigenpairs(operator, 3, tol=1e-4, **settings)
            np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-3)
            assert found.smallest == pytest.approx(expected.smallest, abs=1e-3 * expected.eigenvalues[0])
    power = ll.top_eigenpairs(on_gpu, 1, "power", tol=1e-3, max_products=5000)
    assert abs(power.eigenvalues[0]) == pytest.approx(
        max(expected.eigenvalues[0], -expected.smallest), rel=1e-3
    )


def test_matrices_and_densities_are_the_same(objectives):
    for make in (ll.hessian, ll.gauss_newton, ll.empirical_fisher):
        vectors = torch.randn(3, objectives[0].params.numel, generator=torch.Generator().manual_seed(0))
        on_cpu, on_gpu = (make(o).many(vectors.to(o.theta)).cpu() for o in objectives)
        torch.testing.assert_close(on_cpu, on_gpu, rtol=1e-3, atol=1e-4)
    moments = [ll.spectral_density(o, probes=2, steps=10).moment(2)[0] for o in objectives]
    assert moments[0] == pytest.approx(moments[1], rel=1e-3)


def test_surfaces_are_the_same_by_every_strategy(objectives):
    on_cpu, on_gpu = objectives
    directions = [[ll.random_direction(o.params, 0, index=i) for i in (0, 1)] for o in objectives]
    steps = [tuple(step) for step in np.random.default_rng(0).uniform(-0.5, 0.5, (20, 2))]
    expected = list(strategies(on_cpu, directions[0])[0].losses(steps))
    names = []
    for strategy in strategies(on_gpu, directions[1]):
        np.testing.assert_allclose(list(strategy.losses(steps)), expected, rtol=1e-4)
        names.append(str(strategy))
    assert {f"vmap, {width} points at once" for width in (4, 16, 64)} <= set(names)


def test_a_certified_surface_is_the_same(objectives):
    planes = [ll.plane(o, radius=0.2, tol=0.05) for o in objectives]
    for plane in planes:
        assert plane.certificate.float64 < 1e-3
    error = sum(plane.error for plane in planes)
    np.testing.assert_allclose(planes[0].losses, planes[1].losses, atol=4 * error)


def test_a_run_resumes_on_the_gpu(data_file, tmp_path):
    config = Config(data=str(data_file), dim=8, max_length=8, batch_size=16, epochs=2, eval_every=2)
    train(config, tmp_path / "run", "cuda")
    train(config.model_copy(update={"epochs": 4}), tmp_path / "run", "cuda", resume=True)
    assert load(tmp_path / "run" / "last.pt").epoch == 4
