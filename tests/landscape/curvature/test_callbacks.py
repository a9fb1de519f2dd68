"""Monitors in the trainers of Lightning and of Hugging Face.

The trainers themselves come with `pip install -e '.[frameworks]'`; where they are missing, those tests are
skipped and say so. What the callbacks do is tested without them too.
"""

import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import landscape as ll
from samrec import SAM

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
DATA = [(x, x.sum(1, keepdim=True)) for x in X.split(4)]


def module(monkeypatch, name, **held):
    made = ModuleType(name)
    vars(made).update(held)
    monkeypatch.setitem(sys.modules, name, made)


def monitor(model):
    return ll.Monitor(model, DATA, nn.MSELoss(), every=2, k=1, at_most=None)


def optimizer_of(model, how):
    if how == "adam":
        return torch.optim.Adam(model.parameters(), lr=0.01)
    return SAM(model.parameters(), torch.optim.SGD, rho=0.1, lr=0.01)


def test_lightnings_hooks_measure_after_steps_of_the_optimizer(monkeypatch):
    module(monkeypatch, "lightning")
    module(monkeypatch, "lightning.pytorch", Callback=object)
    model, told = nn.Linear(3, 1), []
    logger = SimpleNamespace(log_metrics=lambda metrics, step: told.append((step, metrics)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = SimpleNamespace(optimizers=[optimizer], loggers=[logger], global_step=0)
    watched = monitor(model)
    callback = ll.lightning_callback(watched)
    callback.on_train_start(trainer, model)
    for step in (1, 1, 2, 2, 3, 4):  # gradients of two batches are accumulated at times
        trainer.global_step = step
        callback.on_train_batch_end(trainer, model, None, None, 0)
    assert [record.step for record in watched.records] == [2, 4]
    assert [step for step, _ in told] == [2, 4]
    assert told[0][1]["threshold"] == pytest.approx(20)
    trainer.global_step = 0  # another training with the same callback
    callback.on_train_start(trainer, model)
    for step in (1, 2, 3):
        trainer.global_step = step
        callback.on_train_batch_end(trainer, model, None, None, 0)
    assert [step for step, _ in told] == [2, 4, 2]


def test_hugging_faces_hooks_measure_after_steps_of_the_optimizer(monkeypatch):
    module(monkeypatch, "transformers", TrainerCallback=object)
    model = nn.Linear(3, 1)
    watched = monitor(model)
    callback = ll.transformers_callback(watched)
    wrapped = SimpleNamespace(optimizer=torch.optim.SGD(model.parameters(), lr=0.1))  # as accelerate does
    callback.on_train_begin(None, None, None, model=model, optimizer=wrapped)
    for step in range(1, 5):
        callback.on_step_end(None, SimpleNamespace(global_step=step), None, model=model)
    assert [(record.step, record.threshold) for record in watched.records] == [(2, 20.0), (4, 20.0)]


@pytest.mark.parametrize("library", ["lightning", "transformers"])
def test_a_library_that_is_missing_is_named(library, monkeypatch):
    for name in (library, f"{library}.pytorch", f"pytorch_{library}"):
        monkeypatch.setitem(sys.modules, name, None)
    make = ll.lightning_callback if library == "lightning" else ll.transformers_callback
    with pytest.raises(ll.InputError, match=f"pip install {library}"):
        make(monitor(nn.Linear(3, 1)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the library warns of is for it to mend
@pytest.mark.skipif(
    importlib.util.find_spec("lightning") is None, reason="lightning is not installed: extra [frameworks]"
)
@pytest.mark.parametrize("how", ["adam", "sam", "sam by hand"])
def test_a_training_of_lightning_is_the_same_bit_for_bit(how):
    import lightning.pytorch as pl

    class Fit(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))
            self.automatic_optimization = how != "sam by hand"

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            if self.automatic_optimization:  # SAM calls the closure that Lightning makes of this twice
                return F.mse_loss(self(batch[0]), batch[1])
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(F.mse_loss(self(batch[0]), batch[1]))
            optimizer.optimizer.first_step()  # SAM itself: the wrapper would keep what it sets
            self.manual_backward(F.mse_loss(self(batch[0]), batch[1]))
            optimizer.step()
            return None

        def configure_optimizers(self):
            return optimizer_of(self, how)

    def trained(watch):
        pl.seed_everything(0)
        model = Fit()
        watched = monitor(model)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        callbacks = [ll.lightning_callback(watched)] if watch else []
        trainer = pl.Trainer(max_epochs=1, callbacks=callbacks, logger=False, accelerator="cpu", **quiet)
        trainer.fit(model, torch.utils.data.DataLoader(DATA, batch_size=None))
        return {**model.state_dict(), "random": torch.get_rng_state()}, watched

    (plain, _), (found, watched) = trained(False), trained(True)
    assert [record.step for record in watched.records] == [2, 4, 6]
    assert all(record.threshold for record in watched.records)
    torch.testing.assert_close(found, plain, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore")  # what the library warns of is for it to mend
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("transformers", "accelerate"))),
    reason="transformers or accelerate is not installed: extra [frameworks]",
)
@pytest.mark.parametrize("how", ["adam", "sam by hand"])
def test_a_training_of_hugging_face_is_the_same_bit_for_bit(how, tmp_path):
    import transformers

    class Fit(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 1))

        def forward(self, x, labels=None):
            out = self.net(x)
            return out if labels is None else {"loss": F.mse_loss(out, labels), "logits": out}

    class Twice(transformers.Trainer):
        """Climbs after one backward pass; the trainer's own step of SAM is then the descent after another."""

        def training_step(self, *inputs):
            loss = super().training_step(*inputs)
            if how != "adam":
                self.optimizer.optimizer.first_step()  # within that of accelerate
                super().training_step(*inputs)
            return loss

    def trained(watch):
        transformers.set_seed(0)
        model = Fit()
        watched = monitor(model)
        rows = [{"x": x, "labels": x.sum()[None]} for x in X]
        arguments = transformers.TrainingArguments(
            tmp_path, max_steps=4, use_cpu=True, report_to=[], save_strategy="no", disable_tqdm=True
        )
        callbacks = [ll.transformers_callback(watched)] if watch else []
        own = (optimizer_of(model, how), None)
        Twice(model, arguments, train_dataset=rows, callbacks=callbacks, optimizers=own).train()
        return {**model.state_dict(), "random": torch.get_rng_state()}, watched

    (plain, _), (found, watched) = trained(False), trained(True)
    assert [record.step for record in watched.records] == [2, 4]
    assert watched.records[0].threshold
    torch.testing.assert_close(found, plain, rtol=0, atol=0)
