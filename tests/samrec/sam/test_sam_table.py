"""SAM around each optimizer, under each scheduler, by closures and in two steps, against plain NumPy."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.sams import BASES, SCHEDULERS, SETTINGS, STYLES, by_hand, trained

EXACT = 1e-12


def same(found, expected):
    for name, want in expected.items():
        np.testing.assert_allclose(found[name], want, rtol=0, atol=EXACT, err_msg=name)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("style", STYLES)
def test_sam_is_that_of_numpy(style, base, setting):
    expected = by_hand(base, "one cycle", **SETTINGS[setting])
    for accumulate in (False, True):
        same(trained(style, base, "one cycle", accumulate, **SETTINGS[setting]), expected)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_scheduler_sees_the_wrapped_optimizer(scheduler, base):
    same(trained("closure", base, scheduler), by_hand(base, scheduler))
    same(trained("two", base, scheduler, True, every=3), by_hand(base, scheduler, every=3))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_a_scaler_changes_nothing_and_skips_what_overflows(base, setting):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
    for accumulate in (False, True):
        found = trained("two", base, "none", accumulate, scaler, **SETTINGS[setting])
        same(found, by_hand(base, skipped=(2, 5), **SETTINGS[setting]))


@pytest.mark.slow
def test_ranks_of_ddp_are_one_process(tmp_path):
    """With gradients that are views of DDP's buckets, too, which the next pass overwrites."""
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "tests.sams", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *command], check=False, capture_output=True, text=True, cwd=ROOT, timeout=900
    )
    assert (tmp_path / "0.json").exists(), done.stderr
    for rank in range(2):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(found) == (len(BASES) + 1) * len(SETTINGS) * len(STYLES)
        assert max(found.values()) < EXACT, found
