"""The same numbers on a GPU. Skips, saying so, where there is none."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import landscape as ll
from landscape.objective.noise import drawn
from landscape.surface.strategies import strategies
from landscape.tasks import TaskOptions
from samrec.checkpoint import load
from samrec.config import Config
from samrec.evaluation import metrics
from samrec.task import objective, ranking
from samrec.training.loop import train
from tests.networks import KINDS, network

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


def pair(of, metrics=False):
    """The arguments of what is measured between two points: an objective, and the other point."""
    return of, of.theta + 0.1 * drawn(of.params, 7)


def frame(of, frame):
    return ll.evaluate_slice(of, frame, grid=3).losses


def compact(of):
    found = of.compact()
    return [0.0] if found is None else [found[0].value(), len(found[1])]


MEASURED = {
    "values": lambda of: of.values(torch.stack([of.theta, 1.1 * of.theta])),
    "per example": lambda of: np.stack(of.per_example()),
    "restricted": lambda of: of.restrict(group=next(iter(of.params.groups))).grad().cpu(),
    "compact": compact,
    "line": lambda of: ll.line(of, grid=5).losses,
    "line with a certificate": lambda of: ll.line(of, radius=0.1, tol=0.05).losses,
    "plane": lambda of: ll.plane(of, grid=3, split=2, normalization="layer").losses,
    "surfaces": lambda of: (
        ll.surfaces({"a": of, "b": of.moved(pair(of)[1])}, grid=3, quadratic=True).slices["b"].losses
    ),
    "eigenvectors' plane": lambda of: frame(of, ll.eigen_frame(of, 2)),
    "plane between": lambda of: frame(of, ll.between_frame(of, {"b": pair(of)[1]}, 2, "a")),
    "trajectory's plane": lambda of: frame(
        of, ll.trajectory_frame(of, [of.theta + i * drawn(of.params, i) for i in (3, 2, 1)])
    ),
    "quadratic model": lambda of: ll.quadratic_model(of, ll.eigen_frame(of, 2).directions).hessian,
    "barrier": lambda of: ll.barrier(*pair(of), grid=5).losses,
    "curve": lambda of: ll.bezier(*pair(of), steps=3, points=5).losses,
    "spectrum": lambda of: ll.spectrum(of, top=3, tol=1e-4, trace=True, probes=4).pairs.eigenvalues,
    "spectrum of Gauss-Newton": lambda of: (
        ll.spectrum(of, matrix="gauss-newton", top=2, tol=1e-4).pairs.eigenvalues
    ),
    "spectrum of Fisher": lambda of: ll.spectrum(of, matrix="fisher", top=2, tol=1e-4).pairs.eigenvalues,
    "bases in little memory": lambda of: ll.top_eigenpairs(of, 1, memory="4 MB").eigenvalues,
    "power iteration": lambda of: (
        ll.top_eigenpairs(of, 1, "power", smallest=0, max_products=3000).eigenvalues
    ),
    "density": lambda of: ll.spectral_density(of, probes=2, steps=8).moment(2)[0],
    **{
        f"trace by {method}": lambda of, method=method: ll.trace(of, method=method, probes=6).value
        for method in ("hutchinson", "hutch++", "xtrace")
    },
    "diagonal": lambda of: ll.diagonal(of, probes=4).values,
    "Frobenius norm": lambda of: ll.frobenius_norm(of, probes=4).value,
    "sharpness": lambda of: [
        found.value for found in ll.sharpness(of, samples=2, probes=2, steps=3).measures.values()
    ],
    "sharpness by group": lambda of: [
        of_group.measures["sam"].value for of_group in ll.sharpness_by_group(of, ["sam"]).values()
    ],
}


def on_both(kind):
    """Return the objective of a small network on both devices."""
    model, data = network(KINDS[kind], 1, torch.float32)
    devices = "cpu", "cuda"
    return [ll.supervised(copy.deepcopy(model).to(d), data, nn.CrossEntropyLoss()) for d in devices]


@pytest.fixture(scope="module")
def networks():
    return {kind: on_both(kind) for kind in ("max-pooling", "batch norm", "attention")}


@pytest.mark.parametrize("name", MEASURED)
def test_every_measurement_is_the_same(name, networks):
    for kind, objectives in networks.items():
        on_cpu, on_gpu = (np.asarray(MEASURED[name](of), dtype=float) for of in objectives)
        scale = np.abs(on_cpu[np.isfinite(on_cpu)]).max(initial=1e-6)
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=2e-3, atol=2e-3 * scale, err_msg=kind)


@pytest.mark.skipif(not torch.backends.cudnn.is_available(), reason="this build of torch has no cuDNN")
def test_a_recurrent_network_is_the_same():
    """Its layer is cuDNN's own on a GPU, which has no second derivative; the measurement goes without."""
    on_cpu, on_gpu = on_both("gru")
    assert on_gpu.value() == pytest.approx(on_cpu.value(), rel=1e-5)
    products = [ll.hessian(of)(of.theta).cpu() for of in (on_cpu, on_gpu)]
    torch.testing.assert_close(products[1], products[0], rtol=1e-3, atol=1e-4)


def test_data_that_are_streamed_and_a_bound_are_the_same():
    model, data = network(KINDS["batch norm"], 1, torch.float32)
    losses, bounds = [], []
    for device in ("cpu", "cuda"):
        moved = copy.deepcopy(model).to(device)
        losses.append(ll.supervised(moved, ll.streamed(data), nn.CrossEntropyLoss()).value())
        rate = ll.supervised(moved, data, lambda outputs, y: (outputs.argmax(1) != y).double())
        bounds.append(ll.pac_bayes_bound(rate, sigmas=(0.01, 0.1), samples=10).bounds)
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    np.testing.assert_allclose(bounds[1], bounds[0], rtol=0.05)


def test_dropout_draws_one_mask_and_leaves_the_generator_alone():
    model = nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5), nn.Linear(64, 3)).to("cuda")
    data, before = [(torch.randn(8, 4), torch.arange(8) % 3)], torch.cuda.get_rng_state()
    of = ll.supervised(model, data, nn.CrossEntropyLoss(), mode="training")
    assert of.value() == pytest.approx(of.value(), rel=1e-5)
    other = ll.supervised(model, data, nn.CrossEntropyLoss(), mode="training", seed=1)
    assert other.value() != pytest.approx(of.value(), rel=1e-5)
    assert torch.equal(torch.cuda.get_rng_state(), before)


def trained(model, data, optimizer):
    device = next(model.parameters()).device
    for x, y in 3 * data:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x.to(device)), y.to(device)).backward()
        optimizer.step()


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_training_on_the_gpu_is_monitored_on_the_cpu(optimizer, monkeypatch):
    """As on a device without float64; what the GPU was given before is not the monitor's time."""
    histories, waited, wait = [], [], torch.accelerator.synchronize
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda of: (waited.append(of.type), wait(of)))
    for device in ("cpu", "cuda"):
        model, data = network(KINDS["batch norm"], 1, torch.float32)
        probe = ll.supervised(model, data, nn.CrossEntropyLoss())
        model = copy.deepcopy(model).to(device)
        steps = optimizer(model.parameters(), 0.05)
        with ll.Monitor(model, probe, optimizer=steps, at_most=None, k=2, rho=0.1) as monitor:
            trained(model, data, steps)
        histories.append(monitor.records)
    for on_cpu, on_gpu in zip(*histories, strict=True):
        np.testing.assert_allclose(on_gpu.eigenvalues, on_cpu.eigenvalues, rtol=5e-3)
        assert on_gpu.threshold == pytest.approx(on_cpu.threshold)
    assert waited == len(histories[1]) * ["cuda"]


def test_a_monitored_training_is_the_same():
    histories = []
    for device in ("cpu", "cuda"):
        model, data = network(KINDS["batch norm"], 1, torch.float32)
        model.to(device)
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        with ll.Monitor(
            model, data, nn.CrossEntropyLoss(), optimizer=optimizer, at_most=None, k=2, rho=0.1
        ) as monitor:
            trained(model, data, optimizer)
        histories.append(monitor.records)
    for on_cpu, on_gpu in zip(*histories, strict=True):
        np.testing.assert_allclose(on_gpu.eigenvalues, on_cpu.eigenvalues, rtol=5e-3)
