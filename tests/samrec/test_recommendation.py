"""What is recommended, under which ids: against an oracle in NumPy, and read back from every format."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from landscape import InputError
from samrec import recommend
from samrec.checkpoint import load, save, save_best
from samrec.config import Config
from samrec.data.filters import first_of_each, k_core
from samrec.data.labels import from_tensor, rows_of, to_tensor
from samrec.data.readers import read
from samrec.methods import new_model
from samrec.recommendation import highest
from samrec.scorer import Scorer
from samrec.scores import summands
from tests.conftest import RUN
from tests.histories import in_rows


def best_of(scores, top):
    """The columns in descending order of their score, equal ones in order, without what is -inf."""
    order = np.lexsort((np.arange(len(scores)), -scores))[:top]
    return [int(column) for column in order if scores[column] > -np.inf]


def oracle(checkpoint, histories, top, exclude_seen):
    """Each history's best rows and their scores, all scores at once, in NumPy."""
    model = load(checkpoint).model().eval()
    packed = in_rows(*(h[-model.max_length :] for h in histories), width=model.max_length)
    with torch.no_grad():
        expected = summands(model(packed).flatten(0, 1)[packed.last]).numpy()
        scores = expected @ summands(model.item.weight).numpy().T
    for row, history in enumerate(histories):
        if exclude_seen:
            scores[row, history] = -np.inf
    found = [best_of(row, top) for row in scores]
    return found, [row[columns].tolist() for row, columns in zip(scores, found, strict=True)]


@pytest.mark.parametrize("top", [1, 7, 1000])
@pytest.mark.parametrize("exclude_seen", [False, True])
def test_all_users_get_what_an_oracle_recommends(runs, data_file, top, exclude_seen):
    data = read(data_file)
    histories = [h.tolist() for h in np.split(data.items, data.offsets[1:-1])]
    rows, scores = oracle(runs / "sasrec" / "best.pt", histories, top, exclude_seen)
    found = recommend(runs / "sasrec" / "best.pt", top=top, exclude_seen=exclude_seen)
    users, items, given = zip(*found.by_user(), strict=True)
    assert list(users) == data.user_ids.tolist()
    assert list(items) == [data.item_ids[own].tolist() for own in rows]
    assert list(given) == scores
    assert found.num_users == data.num_users
    expected = [rank for own in rows for rank in range(1, len(own) + 1)]
    assert found.ranks.tolist() == expected


def test_who_has_seen_everything_is_counted_in_a_warning(runs, data_file):
    data = read(data_file)
    histories = [data.item_ids, data.item_ids[:2]]
    with pytest.warns(UserWarning, match="1 of 2 histories hold every item, and get none"):
        found = recommend(runs / "sasrec" / "best.pt", histories=histories, exclude_seen=True)
    assert [user for user, _, _ in found.by_user()] == [2]


@given(
    arrays(float, st.tuples(st.integers(1, 5), st.integers(1, 60)), elements=st.integers(-4, 4)),
    st.integers(1, 60),
    st.floats(0, 1),
)
def test_the_highest_are_those_of_a_sort_with_ties_in_order(scores, top, hidden):
    top = min(top, scores.shape[1])
    scores[np.random.default_rng(0).random(scores.shape) < hidden] = -np.inf
    columns, values = highest(torch.from_numpy(scores), top)
    for row, own, highest_of in zip(scores, columns, values, strict=True):
        assert highest_of.tolist() == sorted(row, reverse=True)[:top]
        possible = highest_of > -np.inf
        assert own[possible].tolist() == best_of(row, top)


def test_whom_else_one_asks_for_changes_nothing(runs, data_file):
    best = runs / "sasrec" / "best.pt"
    data = read(data_file)
    chosen = data.user_ids[[5, 2, 5]]
    of_all = {user: items for user, items, _ in recommend(best).by_user()}
    for asked in (chosen, [str(user) for user in chosen]):
        found = list(recommend(best, asked).by_user())
        assert [(user, items) for user, items, _ in found] == [(u, of_all[u]) for u in chosen.tolist()]
    own = data.item_ids[data.items[data.offsets[2] : data.offsets[3]]]
    ((number, items, _),) = recommend(best, histories=[own]).by_user()
    assert (number, items) == (1, of_all[data.user_ids[2]])


def test_ids_are_kept_in_the_order_of_the_rows_by_every_reader(tmp_path):
    """Users too, through filters."""
    lines = tmp_path / "lines.txt"
    lines.write_text("30 5 6 7\n4 6 5 5\n")
    assert read(lines).user_ids.tolist() == [30, 4]
    table = tmp_path / "table.csv"
    table.write_text('user,item,time\nbo,"a,b",1\nann,c,1\nbo,c,2\nann,c,3\nzoe,"a,b",1\nann,"a,b",9\n')
    data = read(table)
    assert (data.user_ids.tolist(), data.item_ids.tolist()) == (["ann", "bo", "zoe"], ["a,b", "c"])
    assert k_core(data, 2).user_ids.tolist() == ["ann", "bo"]
    assert first_of_each(data).user_ids.tolist() == ["ann", "bo", "zoe"]


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A run on a table whose ids are text, with a comma in some and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("named")
    rng = np.random.default_rng(0)
    names = [f"ä{n}" if n % 2 else f"x,{n}" for n in range(30)]
    rows = [(f"user {u}", names[i], t) for u in range(40) for t, i in enumerate(rng.permutation(30)[:8])]
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("user", "item", "time"), *rows])
    return folder, names


@pytest.fixture
def best(named, answer):
    folder, _ = named
    if not (folder / "run").exists():
        answer("train", "--data", folder / "table.csv", "--out", folder / "run", *RUN)
    return folder / "run" / "best.pt"


def test_a_checkpoint_recommends_after_a_history_without_its_data(named, best, answer, tmp_path):
    _, names = named
    kept = load(best)
    assert kept.item_ids().tolist() == sorted(names)
    moved = tmp_path / "moved.pt"
    save(replace(kept, config=kept.config.model_copy(update={"data": str(tmp_path / "gone.csv")})), moved)
    history = 'ä1,"x,2",ä3'
    found = answer("recommend", "--ckpt", moved, "--history", history, "--top", 4, "--exclude-seen")
    ((rows,), (scores,)) = oracle(best, [[sorted(names).index(i) for i in ("ä1", "x,2", "ä3")]], 4, True)
    expected = {"user": 1, "items": [sorted(names)[row] for row in rows], "scores": scores}
    assert found["by_user"] == [expected]
    assert (found["users"], found["recommendations"]) == (1, 4)


@pytest.mark.parametrize("without", ["old checkpoint", "safetensors"])
def test_a_file_without_ids_takes_them_from_its_data(best, answer, landscape, tmp_path, without):
    data = Path(load(best).config.data)
    changed = replace(
        load(best),
        items=None,
        config=load(best).config.model_copy(update={"data": str(tmp_path / "gone.csv")}),
    )
    save_best(changed, tmp_path)
    file = tmp_path / ("best.pt" if without == "old checkpoint" else "best.safetensors")
    asked = ["--history", "ä1,ä3", "--top", 3]
    code, _, err = landscape("recommend", "--ckpt", file, *asked)
    assert code == 2
    assert "say where with --data" in err
    found, whole = (
        answer("recommend", "--ckpt", path, "--data", data, *asked)["by_user"] for path in (file, best)
    )
    assert found == whole


def test_all_formats_hold_the_same(named, best, answer, tmp_path):
    whole = recommend(best, top=3)
    columns = [values.tolist() for values in (whole.users, whole.ranks, whole.items, whole.scores)]
    users = tmp_path / "users.txt"
    users.write_text("\ufeff" + "".join(f" user {u}\r\n\n" for u in range(40)), encoding="utf-8")
    for ending, reader in ((".csv", pl.read_csv), (".parquet", pl.read_parquet), (".jsonl", pl.read_ndjson)):
        for asked in ([], ["--users", users]):
            file = tmp_path / f"out{ending}"
            told = answer("recommend", "--ckpt", best, "--top", 3, "--out", file, *asked)
            assert (told["users"], told["recommendations"]) == (40, 120)
            frame = reader(file)
            assert frame.columns == ["user", "rank", "item", "score"]
            found = frame.sort("user", "rank").rows()
            assert found == sorted(zip(*columns, strict=True))


def test_in_python_they_are_short_to_print_and_a_frame(named, best):
    found = recommend(best, top=3)
    assert len(repr(found)) <= 500
    assert len(repr(found).splitlines()) <= 6
    frame = found.to_frame("polars")
    assert frame.columns == ["user", "rank", "item", "score"]
    assert frame.rows() == list(
        zip(*(getattr(found, name).tolist() for name in ("users", "ranks", "items", "scores")), strict=True)
    )


def test_a_table_is_printed(best, landscape, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    code, out, _ = landscape("recommend", "--ckpt", best, "--user", "user 7", "--user", "user 3", "--top", 2)
    assert code == 0
    rows = [line.rsplit(maxsplit=3) for line in out.splitlines() if "user " in line and "rank" not in line]
    assert [(user.strip(), rank) for user, rank, *_ in rows] == [
        ("user 7", "1"),
        ("user 7", "2"),
        ("user 3", "1"),
        ("user 3", "2"),
    ]


def test_an_export_to_another_ending_names_all_that_there_are(best, landscape, tmp_path):
    for target in ("scorer.onnx", "items"):
        code, _, err = landscape("export", best, tmp_path / target)
        assert code == 2
        assert "the ending must be .csv, .parquet, .jsonl or .pt2" in " ".join(err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--user", "nobody"], "no user has the id 'nobody'"),
        (["--history", "ä1,none"], "no item has the id 'none'"),
        (["--history", ""], "a history is empty"),
        (["--history", "ä1", "--user", "user 1"], "give one of --user, --history and --users"),
        (["--out", "items.xlsx"], "the ending must be .csv, .parquet, .jsonl"),
        ([], "give --out FILE"),
        (["--users", "nowhere.txt"], "cannot read file of user ids"),
        (["--user", "user 1", "--top", 0], "--top"),
    ],
)
def test_what_cannot_be_recommended_is_one_line(best, landscape, options, message):
    code, out, err = landscape("recommend", "--ckpt", best, *options)
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


@pytest.mark.parametrize("asked", [{"users": []}, {"histories": []}])
def test_nobody_is_no_empty_history(best, asked):
    with pytest.raises(InputError, match="no users and no histories are given"):
        recommend(best, **asked)


def test_weights_that_diverged_recommend_nothing(best, tmp_path):
    kept = load(best)
    for value in (torch.nan, torch.inf):
        kept.weights["item.weight"][0, 0] = value
        save(kept, tmp_path / "bad.pt")
        with pytest.raises(InputError, match="not finite"):
            recommend(tmp_path / "bad.pt", histories=[["ä1"]])


@settings(max_examples=40)
@given(
    st.one_of(
        st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20, unique=True),
        st.lists(st.text(max_size=5), max_size=20, unique=True),
    )
)
def test_ids_come_back_from_their_tensor(ids):
    array = np.array(ids, str if ids and isinstance(ids[0], str) else np.int64)
    if len(np.unique(array)) < len(array):
        return  # NumPy takes text that ends in a zero byte for equal
    kept = from_tensor(to_tensor(array), len(array))
    assert kept.tolist() == array.tolist()
    assert rows_of(kept, array.tolist(), "item").tolist() == list(range(len(array)))


@pytest.mark.parametrize(
    "kept",
    [
        torch.tensor([1, 2, 2]),
        torch.tensor([1, 2]),
        torch.tensor([1.0, 2.0, 3.0]),
        torch.tensor([[1, 2, 3]]),
        torch.tensor(list(b'["a", "b"]'), dtype=torch.uint8),
        torch.tensor(list(b'["a", "b", 3]'), dtype=torch.uint8),
        torch.tensor(list(b'["a", "b", "c"'), dtype=torch.uint8),
        torch.tensor(list(b"3"), dtype=torch.uint8),
        torch.tensor([255, 254, 3], dtype=torch.uint8),
    ],
)
def test_damaged_ids_are_refused(best, tmp_path, kept):
    with pytest.raises(InputError, match="the checkpoint's item ids are damaged"):
        from_tensor(kept, 3)
    save(replace(load(best), items=kept), tmp_path / "bad.pt")
    with pytest.raises(InputError, match="the checkpoint's item ids are damaged"):
        recommend(tmp_path / "bad.pt", histories=[["ä1"]])


def test_embeddings_are_exported_with_their_ids(named, best, answer, tmp_path):
    weights = load(best).weights["item.weight"]
    names = sorted(named[1])
    for ending, reader in ((".parquet", pl.read_parquet), (".jsonl", pl.read_ndjson), (".csv", pl.read_csv)):
        told = answer("export", best, tmp_path / f"items{ending}")
        assert told["what"] == "embeddings of 30 items"
        frame = reader(tmp_path / f"items{ending}")
        assert frame["item"].to_list() == names
        rows = frame.drop("item").rows() if ending == ".csv" else frame["embedding"].to_list()
        assert torch.equal(torch.tensor(rows, dtype=torch.float64).float(), weights)


@pytest.mark.parametrize(("source", "target"), [("best.pt", "items.vtk"), ("config.toml", "items.csv")])
def test_what_cannot_be_exported_leaves_nothing(best, landscape, tmp_path, source, target):
    code, out, _ = landscape("export", best.with_name(source), tmp_path / target)
    assert (code, out) == (2, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command", [["recommend", "--history", "ä1", "--ckpt"], ["export", "items.csv"], ["export", "items.pt2"]]
)
def test_data_that_are_named_are_read_also_where_none_are_needed(best, landscape, tmp_path, command):
    first, *more = command
    words = [first, *more, best] if "--ckpt" in more else [first, best, tmp_path / more[0]]
    code, out, err = landscape(*words, "--data", tmp_path / "none.csv")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "none.csv: No such file" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["sasrec", "gru4rec", "bert4rec"])
def test_a_length_that_no_history_has_gets_no_scores_of_a_neighbour(method):
    scorer = Scorer(new_model(Config(data="", method=method, max_length=4), 30))
    histories, lengths = torch.randint(30, (6, 4)), torch.tensor([4, 5, 0, -1, 1, 100])
    scores, possible = scorer(histories, lengths), torch.tensor([0, 4])
    alone = scorer(histories[possible], lengths[possible])
    torch.testing.assert_close(scores[possible], alone, rtol=0, atol=1e-6)
    assert scores[[1, 2, 3, 5]].isnan().all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sasrec", "gru4rec", "bert4rec"])
def test_the_exported_scorer_gives_the_same_scores(named, answer, tmp_path, method):
    """For any number of histories, whatever stands behind them, and as `recommend` gives them."""
    folder, names = named
    positions = ["--positions", "end"] if method != "gru4rec" else []
    run = ["--data", folder / "table.csv", "--out", tmp_path / "run", *RUN, "--method", method]
    answer("train", *run, "--epochs", 2, "--max-length", 4, *positions)
    best = tmp_path / "run" / "best.pt"
    answer("export", best, tmp_path / "scorer.pt2")
    program = torch.export.load(tmp_path / "scorer.pt2").module()
    model = load(best).model()
    for count in (1, 2, 13):
        histories = torch.randint(30, (count, 4), generator=torch.Generator().manual_seed(count))
        lengths = torch.arange(count) % 4 + 1
        scores = program(histories, lengths)
        torch.testing.assert_close(scores, Scorer(model)(histories, lengths), rtol=0, atol=1e-6)
        known = [h[:n].tolist() for h, n in zip(histories, lengths, strict=True)]
        ids = [[sorted(names)[row] for row in history] for history in known]
        found = recommend(best, histories=ids, top=30).by_user()
        for row, (_, items, expected) in zip(scores, found, strict=True):
            columns = [sorted(names).index(item) for item in items]
            np.testing.assert_allclose(row[columns].numpy(), expected, atol=1e-5)


def test_the_head_of_json_is_flat(best, answer):
    found = answer("recommend", "--ckpt", best, "--user", "user 1", "--top", 2)
    assert set(found) == {"path", "users", "recommendations", "top", "by_user"}
    assert json.dumps(found)
