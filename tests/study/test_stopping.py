"""Rules of stopping, replayed on a log."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from figures.plan import LIMITS, SHARES, shared
from figures.stopping import LATE, Rule, stopped


def log(values, every=1):
    return [{"epoch": every * (i + 1), "ndcg@10": v, "ndcg@20": -v} for i, v in enumerate(values)]


def trained(values, rule, every=1):
    """Train epoch by epoch, as `samrec.training.run.Run` does; return the last epoch and the best one."""
    best, value, epoch = 0, -1.0, 0
    while epoch < rule.epochs and epoch - best < rule.patience:
        epoch += 1
        if epoch % every == 0 and values[epoch // every - 1] > value:
            best, value = epoch, values[epoch // every - 1]
    return epoch, best


@pytest.mark.parametrize(("every", "seed"), itertools.product((1, 5), range(8)))
def test_a_shorter_rule_stops_where_training_would_have(every, seed):
    values = np.random.default_rng(seed).random(60).cumsum() % 3
    values[0] = 0.001
    patiences = [(60, 4 * every), (17, 6 * every), (60, 9 * every), (60, 4 * every + every // 2)]
    for rule in (Rule(validations * every, patience) for validations, patience in patiences):
        end, best = trained(values, rule, every)
        found = stopped(log(values, every), rule)
        assert (found.end, found.best) == (end, best)
        assert found.unfinished == (end - best < rule.patience)
        assert set(found.late) <= set(range(1, end + 1))


def test_a_run_is_unfinished_if_it_was_stopped_or_ended_while_it_was_rising():
    rising, peaked = log(range(20)), log([*range(10), *[0] * 10])
    assert stopped(rising, Rule(20, 5)).unfinished
    assert stopped(rising, Rule(100, 5)).unfinished  # the clock stopped it
    assert not stopped(peaked, Rule(20, 10)).unfinished
    assert stopped(peaked, Rule(20, 11)).unfinished


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("method", LIMITS)
def test_a_run_that_its_patience_ended_is_finished_wherever_its_validations_fall(share, method):
    """A patience of 133 with a validation every 8 epochs ends 5 epochs after the last of them."""
    run = shared("Beauty", method, 0, share)
    every = run.config(Path()).eval_every
    values = [*range(1, 21), *[0] * (run.rule.epochs // every - 20)]
    end, best = trained(values, run.rule, every)
    own = log(values, every)[: end // every]
    found = stopped(own, run.rule, end)
    assert (found.end, found.best) == (end, best) == (20 * every + run.rule.patience, 20 * every)
    assert not found.unfinished
    assert stopped(own[:-2], run.rule, end - 2 * every).unfinished


def test_late_checkpoints_are_the_five_in_a_row_that_are_best_together():
    values = [0, 9, 0, 0, 0, 5, 5, 5, 5, 5, 1, 1]
    found = stopped(log(values), Rule(12, 12))
    assert found.best == 2
    assert found.late == (6, 7, 8, 9, 10)
    assert stopped(log([3] * 9), Rule(9, 9)).late == (5, 6, 7, 8, 9)
    assert stopped(log([1, 2]), Rule(9, 9)).late == (1, 2)
    assert stopped(log([0.1, 0.7, 0.4, 0.3, 0.6] * 3), Rule(15, 15)).late == (11, 12, 13, 14, 15)  # all equal
    assert stopped(log([0.0301] * 5 + [0.0300] * 5), Rule(10, 10)).late == (1, 2, 3, 4, 5)
    assert len(found.late) == LATE


def test_the_first_of_equal_validations_is_the_best_and_patience_counts_from_it():
    found = stopped(log([1, 3, 2, 3, 3, 3, 3]), Rule(9, 4))
    assert (found.best, found.end, found.unfinished) == (2, 6, False)
    assert stopped(log([0, 0, 0]), Rule(9, 2)).best == 1


def test_a_rule_may_look_at_another_metric():
    values = [1, 2, 3, 4, 5, 6]
    assert stopped(log(values), Rule(6, 3, "ndcg@20")).best == 1
    assert stopped(log(values), Rule(6, 3, "ndcg@20")).end == 4


def test_a_log_without_a_validation_is_refused():
    with pytest.raises(ValueError, match="no best epoch"):
        stopped([], Rule(1, 1))
