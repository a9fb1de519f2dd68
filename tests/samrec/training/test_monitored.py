"""`monitor`: the eigenvalues of the training loss beside a training, which stays what it is."""

import numpy as np
import pytest
import torch

import landscape as ll
from samrec.checkpoint import load
from samrec.config import configure
from samrec.task import objective
from samrec.training import loop
from tests.samrec.training.test_training import small


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"method": "samrec", "rho": 0.1}], ids=["sasrec", "samrec"])
def test_a_run_with_a_monitor_has_the_weights_of_one_without(settings, data_file, tmp_path):
    plain = small(data_file, epochs=2, save_every=1, **settings)
    loop.train(plain, tmp_path / "plain", "cpu")
    loop.train(plain.model_copy(update={"monitor": 1}), tmp_path / "watched", "cpu")
    a, b = (load(tmp_path / name / "last.pt") for name in ("plain", "watched"))
    torch.testing.assert_close(a.weights, b.weights, rtol=0, atol=0)
    torch.testing.assert_close(a.optimizer, b.optimizer, rtol=0, atol=0)
    history = ll.load(tmp_path / "watched" / "monitor.jsonl")
    steps = history.steps[0]
    assert history.steps.tolist() == [steps, 2 * steps]
    assert bool(history.converged.all())
    for epoch in (2,):  # what it saw is what the checkpoint of that epoch shows
        checkpoint = tmp_path / "plain" / "epochs" / f"epoch-{epoch:04}.pt"
        own = objective(checkpoint, ll.TaskOptions())
        assert history.losses[epoch - 1] == pytest.approx(own.value(), rel=1e-6)
        found = ll.top_eigenpairs(own, 5, smallest=0).eigenvalues
        assert history.eigenvalues[epoch - 1] == pytest.approx(found, rel=1e-3)
    edge = np.nan if settings else 38 / 1e-3  # that of SAM around Adam is not known
    np.testing.assert_allclose(history.thresholds, [edge] * 2)


@pytest.mark.slow
def test_a_resumed_run_continues_the_file(data_file, tmp_path):
    config = small(data_file, epochs=2, monitor=1)
    loop.train(config, tmp_path / "run", "cpu")
    loop.train(config.model_copy(update={"epochs": 3}), tmp_path / "run", "cpu", resume=True)
    steps = ll.load(tmp_path / "run" / "monitor.jsonl").steps
    assert steps.tolist() == [steps[0], 2 * steps[0], 3 * steps[0]]


def test_what_cannot_be_monitored_is_said(data_file, tmp_path):
    config = small(data_file, monitor=1)
    with pytest.raises(ll.InputError, match="monitor measures one run in one process"):
        loop.train_together([config, config], [tmp_path / "a", tmp_path / "b"], "cpu")
    with pytest.raises(ll.InputError, match="monitor is not a setting of s3rec-pretraining"):
        configure({"data": str(data_file), "method": "s3rec-pretraining", "monitor": 1})
