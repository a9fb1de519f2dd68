"""Arguments that mean nothing, or that nothing could carry out, are refused before anything is looked at."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import landscape as ll
from landscape.runtime import devices
from landscape.runtime.arguments import Between, Choice, Each, Place, Texts, Whole, _rules

DECORATED = (ll.Frame, ll.Monitor, ll.Objective, ll.TaskOptions)
"""Classes that are made by hand; the others are results, or hold a direction or facts."""
FUNCTIONS = {
    name: given for name in ll.__all__ if inspect.isfunction(given := getattr(ll, name)) or given in DECORATED
}
ELSEWHERE = {
    ("linear_cross_entropy", "ignore_index"),  # any class: none of them is refused
    ("spectrum", "memory"),  # bytes, or a text: `bytes_of`
    ("top_eigenpairs", "memory"),
    ("Objective", "filter_axes"),  # an axis by the name of a parameter: `ParamSpace`
    ("Frame", "marks"),  # of any size
    ("Frame", "along"),
}
NUMBERS = [float("nan"), float("inf"), -1, -0.5, 10**400, -(10**400), 1e200, True, 1j, "1", b"1"]
OTHERS = ["auto ", "x" * 10**6, torch.ones(2), [], [1, "2"], [1, None], {}, {"a": 1}, {1}, object(), print]
WHOLE = [1.5, 2.0, np.float32(3), torch.tensor(3), 10**20, 10**70, 10**12]


def parameters():
    return [
        (name, each, parameter.annotation)
        for name, given in FUNCTIONS.items()
        for each, parameter in inspect.signature(
            inspect.unwrap(given.__init__ if given in DECORATED else given)
        ).parameters.items()
        if each not in ("objective", "self")
    ]


def leaves(annotation):
    parts = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    if get_origin(annotation) is Callable:
        return set()
    if get_origin(annotation) is Literal or not parts:
        return {Literal} if parts else {annotation}
    return set().union(*map(leaves, parts))


DECLARED = [(n, p, rules) for n, p, annotation in parameters() if (rules := _rules(annotation))]


def bad(rules):
    """Values that none of the rules may allow."""
    flat = list(rules)
    while any(isinstance(rule, Each) for rule in flat):
        flat = [inner for rule in flat for inner in (rule.rules if isinstance(rule, Each) else (rule,))]
    values = [
        value for value in NUMBERS + OTHERS if not (value is True and any(type(r) is Choice for r in flat))
    ]
    if any(isinstance(rule, Texts) for rule in flat):
        values.remove([])
    if any(isinstance(rule, Place) for rule in flat):
        values = [value for value in values if not isinstance(value, str)] + [""]
    if all(isinstance(rule, Whole) for rule in flat):
        values += WHOLE if any(rule.most < 10**12 for rule in flat) else WHOLE[:-1]
    for rule in flat:
        if isinstance(rule, Whole):
            values += [rule.least - 1, rule.most + 1]
        if isinstance(rule, Between):
            values += [rule.low, rule.high]
    if any(isinstance(rule, Each) for rule in rules):
        values += [[value] for value in values]
    return values


def test_every_number_flag_and_choice_has_bounds():
    """So a new one has them too."""
    counted = {(name, each) for name, each, _ in DECLARED}
    for name, each, annotation in parameters():
        if leaves(annotation) & {int, float, bool, Literal} and (name, each) not in ELSEWHERE:
            assert (name, each) in counted, f"{name}({each}: {annotation})"
        assert annotation not in (Sequence[str], Sequence[str] | None), (
            f"{name}({each}) takes one string by letters"
        )
    assert len(counted) > 90


def test_help_and_notebooks_show_plain_types():
    shown = str(inspect.signature(ll.plane))
    assert "tol: float = 0.001, grid: int | collections.abc.Sequence[int] | None = None" in shown
    for name, function in FUNCTIONS.items():
        assert "Annotated" not in str(inspect.signature(function)), name


@pytest.mark.parametrize("name", sorted({name for name, _, _ in DECLARED}))
def test_bad_values_are_refused_by_name_before_anything_is_looked_at(name):
    signature = inspect.signature(FUNCTIONS[name])
    required = {
        each: 1 if each == "dimension" else object()
        for each, parameter in signature.parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    for _, each, rules in (declared for declared in DECLARED if declared[0] == name):
        for value in bad(rules):
            with pytest.raises(ll.InputError) as refused:
                FUNCTIONS[name](**(required | {each: value}))
            said = str(refused.value)
            assert said.startswith(f"{each} is "), (each, value)
            assert "; it must be " in said
            assert len(said) <= 300, said
            assert said.isprintable()


@pytest.mark.parametrize(
    "memory", ["lots", "", "9" * 400 + " TB", "-1", 0, -1, 10**400, 2.5, float("nan"), True, []]
)
def test_a_memory_that_is_none(memory, operator, symmetric):
    with pytest.raises(ll.InputError, match=r"memory is .*; it must be a number of bytes or a text"):
        ll.top_eigenpairs(operator(symmetric), memory=memory)


def test_settings_that_are_handed_on_are_checked_too(sasrec_objective):
    with pytest.raises(ll.InputError, match="samples is 1000000000000; it must be a whole number from 2 to"):
        ll.sharpness_by_group(sasrec_objective, ["average"], samples=10**12)


def test_a_number_of_numpy_is_a_number(operator, symmetric, tmp_path):
    matrix = operator(symmetric)
    plain = ll.trace(matrix, probes=3, tol=0.5, seed=7)
    numpy = ll.trace(matrix, probes=np.int64(3), tol=np.float64(0.5), seed=np.uint8(7))
    np.testing.assert_array_equal(numpy.samples, plain.samples)
    assert ll.load(numpy.save(tmp_path / "a.npz")).settings["probes"] == 3


class Huge:
    """A matrix of 10⁹ rows, of which nothing may be asked."""

    shape = (10**9, 10**9)
    dtype = torch.float32
    device = torch.device("cpu")

    def __call__(self, vector):
        raise AssertionError("a product was asked for")


@pytest.mark.parametrize(
    "ask",
    [
        lambda huge: ll.top_eigenpairs(huge, 10**5),
        lambda huge: ll.top_eigenpairs(huge, 10**5, "power", smallest=0),
        lambda huge: ll.top_eigenpairs(huge, 1, block=10**6),
        lambda huge: ll.spectral_density(huge, steps=10**6),
        lambda huge: ll.trace(huge, method="hutch++", probes=10**6),
        lambda huge: ll.trace(huge, method="xtrace", probes=10**6),
    ],
)
def test_vectors_have_room(ask, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: 10**12)
    with pytest.raises(
        ll.InputError, match=r" = [\d,]+ keeps [\d,]+ vectors of 1,000,000,000 numbers in memory, "
    ):
        ask(Huge())


def test_directions_have_room(sasrec_objective, monkeypatch):
    monkeypatch.setattr(devices, "free_memory", lambda _: 10**8)
    with pytest.raises(ll.InputError, match=r"seeds = 1,000,000 keeps 2,000,000 vectors"):
        ll.surfaces({"a": sasrec_objective}, seeds=10**6)


def test_a_text_is_a_path(sasrec_objective, tmp_path):
    for found in (
        ll.line(sasrec_objective, grid=3, file=f"{tmp_path}/a.jsonl"),
        ll.barrier(sasrec_objective, sasrec_objective.theta + 1, grid=3, file=f"{tmp_path}/b.jsonl"),
        *ll.surfaces({"a": sasrec_objective}, dim=1, grid=3, folder=f"{tmp_path}/new").slices.values(),
    ):
        ll.load(found.save(f"{tmp_path}/a.npz"))
    ll.export(ll.load(f"{tmp_path}/new/a.surface.npz"), f"{tmp_path}/a.csv")
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.jsonl", "new", "a.npz", "a.csv"}
    assert ll.TaskOptions(data="a.csv").data == Path("a.csv")


def test_what_is_not_given_is_not_looked_at():
    assert ll.TaskOptions(users=None).users is None
    assert NoneType in get_args(inspect.signature(ll.TaskOptions).parameters["users"].annotation)
    with pytest.raises(TypeError, match="missing a required argument: 'objective'"):
        ll.sharpness(samples=4)
