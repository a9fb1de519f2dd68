"""Settings: what is refused, what a file keeps, and what stands for what is not said."""

import pytest

from landscape import InputError
from samrec.architecture import PRESETS
from samrec.config import Config, combined, configure, read_settings, write_config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dim": 7}, "dim 7 is not a multiple of heads 2"),
        ({"rho": 0.1}, "rho is not a setting of sasrec, only of samrec, cl4srec"),
        ({"every": 2}, "every is not a setting of sasrec"),
        (
            {"method": "cl4srec", "adaptive": True},
            "adaptive is a setting of SAM, which cl4srec has with rho; give rho",
        ),
        ({"crop": 0.5}, "crop is not a setting of sasrec, only of cl4srec"),
        (
            {"method": "cl4srec", "attributes": "a.json"},
            "attributes is not a setting of cl4srec, only of s3rec, s",
        ),
        (
            {"method": "s3rec-pretraining", "pretrain_epochs": 3},
            "pretrain_epochs is not a setting of s3rec-pre",
        ),
        ({"method": "gru4rec", "rho": 0.1, "perturb": "norm-only"}, "gru4rec has no normalization"),
        ({"method": "gru4rec", "preset": "sasrec-bert"}, "preset is not a setting of gru4rec"),
        ({"method": "gru4rec", "init": "xavier"}, "init is not a setting of gru4rec"),
        ({"preset": "bert"}, "setting preset: .*'sasrec-bert'"),
        ({"preset": ["bert"]}, "setting preset: .*'sasrec-bert'"),
        ({"method": "cl4srec", "temperature": 0}, "setting temperature: .*greater than 0"),
        ({"method": "samrec", "every": 2, "ascent": "micro-batch"}, "every reuses one direction"),
        ({"loss": "ce", "negatives": 5}, "ce scores all items"),
        ({"calibration": 0.5}, "calibration is for loss gbce"),
        ({"batch_size": 10, "micro_batches": 3}, "batch_size 10 is not a multiple of micro_batches 3"),
        ({"train_fraction": 0}, "setting train_fraction: .*greater than 0"),
        ({"dropout": 1.0}, "setting dropout: .*less than 1"),
        ({"lr": float("nan")}, "setting lr: .*"),
        ({"epochs": "many"}, "setting epochs: .*integer"),
        ({"method": "bert"}, "setting method: .*'sasrec', 'samrec', 'cl4srec'"),
        ({"colour": 1}, "setting colour: no such setting; see landscape train --help"),
        ({"hidden_size": 64}, r"setting hidden_size: no such setting; did you mean dim\?"),
        ({"MAX_ITEM_LIST_LENGTH": 50}, r"no such setting; did you mean max_length\?"),
        ({"epoch": 1}, r"setting epoch: no such setting; did you mean epochs\?"),
        ({"epochs": 1.5}, r"setting epochs: must be a valid integer, not 1\.5"),
        ({"patience": 2, "eval_every": 5}, "patience 2 is shorter"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, message):
    with pytest.raises(InputError, match=message) as caught:
        configure({"data": "x", **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[train]\ndata = "d.txt"', "setting train: no such setting"),
        ('dataset = "d.txt"', r"setting dataset: no such setting; did you mean data\?"),
        ("epochs = 3", "nothing to train on"),
    ],
)
def test_data_under_another_name_are_not_said_to_be_missing(text, message, tmp_path):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(InputError, match=f"^{message}"):
        combined(tmp_path / "c.toml", {})


@pytest.mark.parametrize("name", ['a "quoted"\\ päth\n.txt', "📚/data.txt", "\x00\x1b\x7f\x85\u2028"])
def test_settings_survive_toml(name, tmp_path):
    config = Config(data=name, method="samrec", rho=1e-5, lr=0.5)
    write_config(config, tmp_path / "c.toml")
    assert configure(read_settings(tmp_path / "c.toml")) == config


def test_a_file_whose_name_is_no_text_has_settings_too(tmp_path):
    write_config(Config(data="caf\udce9.txt"), tmp_path / "c.toml")
    assert read_settings(tmp_path / "c.toml")["data"] == "caf?.txt"


@pytest.mark.parametrize("before", PRESETS)
@pytest.mark.parametrize("now", PRESETS)
def test_a_preset_decides_the_architecture_in_place_of_that_of_a_stored_run(before, now, tmp_path):
    """All of it, but for what the stored run itself chose otherwise."""
    path = tmp_path / "c.toml"
    for chosen in ({}, {"norm": "pre", "dropout": 0.2}):
        write_config(Config(data="d", preset=before, **chosen), path)
        assert configure(combined(path, {})) == Config(data="d", preset=before, **chosen)
        assert configure(combined(path, {"preset": now})) == Config(data="d", preset=now, **chosen)


@pytest.mark.parametrize(("before", "now"), [("sasrec", "bert4rec"), ("bert4rec", "samrec")])
def test_a_method_decides_the_loss_in_place_of_that_of_a_stored_run(before, now, tmp_path):
    path = tmp_path / "c.toml"
    write_config(Config(data="d", method=before), path)
    assert configure(combined(path, {"method": now})) == Config(data="d", method=now)
    write_config(Config(data="d", method=before, loss="gbce"), path)
    assert configure(combined(path, {"method": now})).loss == "gbce"
    path.write_text('data = "d"\nloss = "bce"\n')  # somebody's choice
    assert configure(combined(path, {"method": "bert4rec"})).loss == "bce"


def test_a_file_that_names_a_part_of_the_architecture_keeps_it_whatever_the_preset(tmp_path):
    (tmp_path / "c.toml").write_text('data = "d"\npositions = "start"\n')
    found = configure(combined(tmp_path / "c.toml", {"preset": "sasrec-bert"}))
    assert found == Config(data="d", preset="sasrec-bert", positions="start")
    assert found.norm == "post"
