"""Records of runs, and the ranks that are kept beside them."""

import shutil

import numpy as np
import pytest

from figures.plan import ranked
from figures.records import LARGEST, read_ranks, read_records, write_record
from landscape import InputError
from samrec.evaluation import metrics
from tests.records import recorded


def test_ranks_in_a_byte_keep_every_metric_at_twenty(tmp_path):
    rng = np.random.default_rng(0)
    ranks = {epoch: rng.geometric(0.01, 500) - 1 for epoch in (20, 5, 35)}
    record = recorded(ranked("Beauty", "sasrec", 0))
    write_record(record, ranks, tmp_path)
    assert read_records(tmp_path) == {record.name: record}
    kept = read_ranks(record, tmp_path, (5, 20))
    for found, epoch in zip(kept, (5, 20), strict=True):
        assert (found == np.minimum(ranks[epoch], LARGEST)).all()
        assert {k: v for k, v in metrics(found).items() if "mrr" not in k} == {
            k: v for k, v in metrics(ranks[epoch]).items() if "mrr" not in k
        }
    assert (read_ranks(record, tmp_path) == np.minimum(ranks[35], LARGEST)).all()  # its best epoch
    with pytest.raises(InputError, match="no ranks of epoch 6"):
        read_ranks(record, tmp_path, (6,))


def test_a_file_that_is_no_record_is_said_to_be_none(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text('{"name": 1}')
    with pytest.raises(InputError, match="no record"):
        read_records(tmp_path)


def test_a_copy_of_a_record_does_not_take_its_place(tmp_path):
    record = recorded(ranked("Beauty", "sasrec", 0))
    write_record(record, {35: np.zeros(3, int)}, tmp_path)
    shutil.copy(tmp_path / "runs" / f"{record.name}.json", tmp_path / "runs" / "copy.json")
    with pytest.raises(InputError, match=r"copy\.json is the record of beauty"):
        read_records(tmp_path)
