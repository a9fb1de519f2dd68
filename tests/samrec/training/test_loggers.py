"""What TensorBoard, W&B and MLflow hold is what metrics.jsonl holds, and none of them can end a training."""

import json
import struct
import sys
import warnings
from pathlib import Path

import pytest

from landscape import InputError
from samrec.choices import METRICS
from samrec.training import loggers, loop
from samrec.training.log import read_log
from samrec.training.run import Run
from tests.samrec.training.test_training import at_step, small


def expected(out):
    """By the name of a number, its value by epoch."""
    found = {}
    for line in read_log(out / "metrics.jsonl"):
        epoch = line.pop("epoch")
        for name in ("loss", "seconds"):
            if name in line:
                found.setdefault(f"train/{name}", {})[epoch] = line[name]
        for part in ("valid", "test"):
            for name, value in line.get(part, {}).items():
                found.setdefault(f"{part}/{name}", {})[epoch] = value
    return found


def same(found, out):
    known = expected(out)
    assert found.keys() == known.keys()
    for name, values in known.items():
        assert found[name] == pytest.approx(values, rel=1e-6), name


def interrupted(config, out, monkeypatch, log, step=11):
    """Train, be interrupted in the middle of an epoch, and resume."""
    with monkeypatch.context() as patched:
        at_step(step, KeyboardInterrupt, patched)
        with pytest.raises(KeyboardInterrupt):
            loop.train(config, out, "cpu", log=log)
    assert 0 < len(read_log(out / "metrics.jsonl")) < config.epochs
    return loop.train(config, out, "cpu", resume=True, log=log)


def tensorboard_of(out):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = reading.EventAccumulator(
        str(out / "tensorboard"), size_guidance=dict.fromkeys(("scalars", "tensors"), 0)
    )
    found.Reload()
    scalars = {tag: {e.step: e.value for e in found.Scalars(tag)} for tag in found.Tags()["scalars"]}
    texts = {
        tag: [e.tensor_proto.string_val[0].decode() for e in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
    }
    return scalars, texts


def test_tensorboard_holds_the_metrics_the_settings_and_the_result(data_file, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    config = small(data_file, monitor=3)
    out = interrupted(config, tmp_path / "run", monkeypatch, ["tensorboard"]).out
    scalars, texts = tensorboard_of(out)
    monitored = {tag: scalars.pop(tag) for tag in list(scalars) if tag.startswith("monitor/")}
    same(scalars, out)
    assert monitored
    assert {tuple(values) for values in monitored.values()} <= {(3, 6), (6,)}
    ((settings,), (result,)) = texts["settings/text_summary"], texts["result/text_summary"]
    assert "| dim | 8 |" in settings
    test = read_log(out / "metrics.jsonl")[-1]["test"]
    assert f"| test | {' | '.join(f'{test[m]:.4f}' for m in METRICS)} |" in result


def records_of(content, block=2**15):
    """Yield the records of a log in LevelDB's format, after seven bytes of W&B's own."""
    place, parts = 7, b""
    while place + 7 <= len(content):
        if (room := block - place % block) < 7:
            place += room
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if not kind:
            return
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_wandb_offline_holds_the_metrics_the_settings_and_the_result(data_file, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.setenv("WANDB_MODE", "offline")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        out = interrupted(small(data_file), tmp_path / "run", monkeypatch, ["wandb"]).out
    wandb.teardown()  # which waits until all is written
    files = sorted(out.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    found, ids, settings, summary = {}, set(), {}, set()
    for file in files:
        for data in records_of(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            ids |= {record.run.run_id} if record.run.run_id else set()
            settings |= {item.key: item.value_json for item in record.run.config.update}
            summary |= {item.key or "/".join(item.nested_key) for item in record.summary.update}
            row = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
            for name, value in row.items():
                if not name.startswith("_") and name != "epoch":
                    found.setdefault(name, {})[row["epoch"]] = value
    same(found, out)
    assert ids == {json.loads((out / "loggers.json").read_text())["wandb"]}  # the same run, resumed
    assert settings["dim"] == "8"
    assert any(name.startswith("result") for name in summary)


def test_mlflow_holds_the_metrics_the_settings_and_the_result(data_file, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", exc_type=ImportError)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        out = interrupted(small(data_file), tmp_path / "run", monkeypatch, ["mlflow"]).out
        client = mlflow.MlflowClient()
        (run,) = client.search_runs([client.get_experiment_by_name("samrec").experiment_id])
        names = {name.replace("_at_", "@"): name for name in run.data.metrics}
        history = {
            n: {m.step: m.value for m in client.get_metric_history(run.info.run_id, k)}
            for n, k in names.items()
        }
        result = Path(client.download_artifacts(run.info.run_id, "result.md")).read_text()
    same(history, out)
    assert run.data.params["dim"] == "8"
    assert (run.info.status, run.info.run_name) == ("FINISHED", "run")
    assert result.count("\n") == 4


class Fails:
    """A logger that fails at a call of a name."""

    def __init__(self, at):
        self.at, self.id, self.calls = at, None, []

    def __call__(self, *_):
        if self.at == "start":
            raise ConnectionError("no route\nto host")
        return self

    def _call(self, name):
        self.calls.append(name)
        if name == self.at:
            raise OSError("No space left on device\nat all")

    def values(self, values, epoch):
        self._call("values")

    def result(self, table):
        self._call("result")

    def close(self, ended):
        self._call(f"close {ended}")


@pytest.fixture
def stand_in(monkeypatch):
    def put(name, logger):
        monkeypatch.setattr(loggers, "KINDS", {**loggers.KINDS, name: logger})
        monkeypatch.setitem(sys.modules, loggers.MODULES[name], sys)
        return logger

    return put


@pytest.mark.parametrize("at", ["values", "result", "close True"])
def test_a_logger_that_fails_is_one_warning_and_the_others_go_on(data_file, tmp_path, stand_in, at):
    broken, whole = stand_in("wandb", Fails(at)), stand_in("mlflow", Fails("never"))
    with pytest.warns(
        UserWarning, match="logging to wandb failed and stops; .*: No space left on device$"
    ) as said:
        outcome = loop.train(small(data_file, epochs=3), tmp_path / "run", "cpu", log=["wandb", "mlflow"])
    assert len(said) == 1
    assert outcome.test
    assert whole.calls == [*3 * ["values"], "values", "result", "close True"]
    assert broken.calls.count(at) == 1


def test_a_logger_that_cannot_start_stops_before_anything_is_trained(data_file, tmp_path, stand_in):
    first = stand_in("mlflow", Fails("never"))
    stand_in("wandb", Fails("start"))
    with pytest.raises(InputError, match=r"logging to wandb cannot start: no route$"):
        loop.train(small(data_file), tmp_path / "run", "cpu", log=["mlflow", "wandb"])
    assert first.calls == ["close False"]
    assert not (tmp_path / "run" / "last.pt").exists()


@pytest.mark.parametrize("name", loggers.MODULES)
def test_a_package_that_is_missing_is_one_line(data_file, tmp_path, landscape, monkeypatch, name):
    monkeypatch.setitem(sys.modules, loggers.MODULES[name], None)
    code, out, err = landscape("train", "--data", data_file, "--log", name, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert f"{name} is not installed: pip install {name}" in err


def test_an_unknown_logger_is_refused(data_file, landscape):
    code, out, err = landscape("train", "--data", data_file, "--log", "paper")
    assert (code, out) == (2, "")
    assert "'paper' is not one of 'tensorboard', 'wandb', 'mlflow'" in " ".join(err.split())


def test_a_run_that_is_stopped_says_so(data_file, tmp_path, stand_in, monkeypatch):
    logger = stand_in("mlflow", Fails("never"))
    at_step(2, KeyboardInterrupt, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        loop.train(small(data_file), tmp_path / "run", "cpu", log=["mlflow"])
    assert logger.calls == ["close False"]


class Keeps(Fails):
    """A logger that keeps what it is told, under an id."""

    def __init__(self):
        super().__init__("never")
        self.id, self.told = "known", []

    def values(self, values, epoch):
        self.told += [(name, epoch) for name in values]

    def epochs(self, name):
        return [epoch for other, epoch in self.told if other == name]


@pytest.mark.parametrize("first", [["tensorboard", "mlflow"], ["tensorboard"]])
def test_a_resumed_run_tells_each_epoch_and_each_test_once(data_file, tmp_path, stand_in, monkeypatch, first):
    """Killed between the log and last.pt, resumed, resumed again at its end, and with more epochs.

    TensorBoard forgets epochs that are trained again; a logger that is new has been told nothing.
    """
    told = {name: stand_in(name, Keeps()) for name in ("tensorboard", "mlflow")}
    out, save = tmp_path / "run", Run.save

    def killed(run, *arguments):
        if run.epoch == 3:
            raise KeyboardInterrupt
        save(run, *arguments)

    (out / "tensorboard").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(Run, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            loop.train(small(data_file, epochs=3), out, "cpu", log=first)
    for epochs in (3, 3, 4):
        loop.train(small(data_file, epochs=epochs), out, "cpu", resume=True, log=["tensorboard", "mlflow"])
    assert told["tensorboard"].epochs("train/loss") == [1, 2, 3, 3, 4]
    assert told["mlflow"].epochs("train/loss") == ([1, 2, 3, 4] if "mlflow" in first else [3, 4])
    for logger in told.values():
        tests = logger.epochs("test/mrr")
        assert len(tests) == len(set(tests)) > 0
