"""Attributes of items: what a file of them says, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landscape import InputError
from samrec.data.attributes import beside, read_attributes
from samrec.data.interactions import Interactions

INTERACTIONS = Interactions.from_histories([[10, 20, 30], [40, 10, 50]], "here")


def read(folder, content):
    path = folder / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_attributes(path, INTERACTIONS)


def of_items(attributes):
    """The attributes of each item, in the order of its row."""
    return [[a for a in own if a >= 0] for own in attributes.of_item.tolist()]


def test_attributes_are_numbered_anew_and_items_unknown_to_the_data_left_out(tmp_path):
    found = read(tmp_path, '{"30": [700, 5], "10": [5], "50": [], "60": [1, 2, 3, 4], "40": [9, 9, 700]}')
    assert of_items(found) == [[0], [], [0, 2], [1, 2], []]  # of 5, 9 and 700, for items 10 to 50
    assert found.of_item.shape == (5, 2)
    assert found.of_item.dtype == np.int64
    assert found.count == 3


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from([10, 20, 30, 40, 50, 60]),
        st.lists(st.integers(-(2**70), 2**70), max_size=5),
        min_size=1,
    )
)
def test_what_was_written_is_read(tmp_path_factory, known):
    folder = tmp_path_factory.mktemp("attributes")
    text = json.dumps(known)
    own = {item: set(known.get(item, [])) for item in INTERACTIONS.item_ids.tolist()}
    numbers = sorted(set().union(*own.values()))
    if not numbers:
        with pytest.raises(InputError, match=r"a\.json has no attributes of any item of here"):
            read(folder, text)
        return
    found = read(folder, text)
    assert found.count == len(numbers)
    assert [{numbers[a] for a in row} for row in of_items(found)] == list(own.values())


def test_items_may_have_names(tmp_path):
    named = Interactions(np.array([0, 1, 1]), np.array([0, 3]), np.array(["B001", "ü"]), "here")
    (tmp_path / "a.json").write_text('{"ü": [3]}', "utf-8")
    assert of_items(read_attributes(tmp_path / "a.json", named)) == [[], [0]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; expected a JSON file of attributes"),
        (" ", "with whole numbers; Invalid JSON"),
        ("10 20 30\n", "with whole numbers; Invalid JSON"),
        ('{"10": [1', "with whole numbers; Invalid JSON"),
        (b"\xff\xfe\x00", "with whole numbers; Invalid JSON"),
        (b'{"10": [1]}\x00', "with whole numbers; Invalid JSON"),
        ("[" * 100_000, "with whole numbers; "),
        ('{"10": ' + "[" * 100_000, "with whole numbers; "),
        ("[[1, 2]]", "with whole numbers; Input should be an object"),
        ("null", "with whole numbers; Input should be an object"),
        ('{"10": 3}', "with whole numbers; Input should be a valid array"),
        ('{"10": null}', "with whole numbers; Input should be a valid array"),
        ('{"10": {"1": 2}}', "with whole numbers; Input should be a valid array"),
        ('{"10": ["1"]}', "with whole numbers; Input should be a valid integer"),
        ('{"10": [1.5]}', "with whole numbers; Input should be a valid integer"),
        ('{"10": [1.0]}', "with whole numbers; Input should be a valid integer"),
        ('{"10": [true]}', "with whole numbers; Input should be a valid integer"),
        ('{"10": [NaN]}', "with whole numbers; "),
        ('{"10": [1e400]}', "with whole numbers; "),
        ("{}", "has no attributes of any item of here"),
        ('{"10": [], "20": []}', "has no attributes of any item of here"),
        ('{"1": [1], "2": [2]}', "has no attributes of any item of here"),
    ],
    ids=range(22),
)
def test_files_that_say_nothing_are_refused_in_one_line(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert str(tmp_path) in str(caught.value)


def test_a_file_that_is_none_is_refused_in_one_line(tmp_path):
    for path, message in (
        (tmp_path / "no.json", "cannot read JSON file"),
        (tmp_path, "is a folder, not a JSON"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_attributes(path, INTERACTIONS)
        assert "\n" not in str(caught.value)


def test_attributes_lie_beside_the_data_under_their_name(tmp_path):
    assert beside(tmp_path / "Beauty.txt") is None
    path = tmp_path / "Beauty_item2attributes.json"
    path.write_text("{}")
    for name in ("Beauty.txt", "Beauty.txt.gz", "Beauty"):
        assert beside(tmp_path / name) == path
    assert beside(tmp_path / "Beauty2.txt") is None
    assert beside(tmp_path / "sub" / "Beauty.txt") is None


def test_log_odds_are_those_of_having_an_attribute(tmp_path):
    """Of five items; half an item more on either side keeps all of them finite."""
    found = read(tmp_path, '{"10": [1, 2], "20": [1], "30": [1], "40": [1], "50": [1]}')
    assert found.log_odds.tolist() == pytest.approx([np.log(5.5 / 0.5), np.log(1.5 / 4.5)])
