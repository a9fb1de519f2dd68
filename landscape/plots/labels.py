"""What figures say of slices: their axes, the length of a step, and marks."""

from collections.abc import Collection, Mapping
from typing import Any

from landscape.plots.style import subscript
from landscape.surface.slice import Slice


def step_lengths(result: Slice) -> str:
    """Return the length of a step of 1 relative to ‖θ‖, which in filter units differs between models."""
    norm = result.settings["theta_norm"]
    lengths = [f"{d['norm'] / norm if norm else float('nan'):.2g}" for d in result.directions]
    return lengths[0] if len(set(lengths)) == 1 else " and ".join(lengths)


def mark_label(mark: Mapping[str, Any]) -> str:
    """Return the label of a mark: its name, and its own loss where another is drawn there."""
    own = mark.get("own_end")
    return f"{mark['name']}{'' if own is None else f' (its own loss is {own:.4g})'}"


def axis_label(result: Slice, axis: int) -> str:
    """Return the label of an axis: what a step along it is."""
    direction = result.directions[axis]
    name = f"d{subscript(axis + 1)}" if len(result.directions) > 1 else "d"
    if direction["kind"] == "eigenvector" and "eigenvalue" in direction:
        return f"‖δ‖, eigenvector of λ = {direction['eigenvalue']:.3g}"
    if direction["kind"] == "principal component" and "explained_variance" in direction:
        return f"PC {axis + 1} ({direction['explained_variance']:.0%} of variance)"
    if direction["kind"] == "difference" and axis == 0 and len(result.marks) > 1:
        return f"from {result.marks[0]['name']} to {result.marks[1]['name']}"
    return f"step along {name}"


def line_label(slices: Collection[Slice]) -> str:
    """Return the label of the axis of several lines: what a step along it is for all of them."""
    first, *others = dict.fromkeys(axis_label(result, 0) for result in slices)
    if not others:
        return first
    kinds = {result.directions[0]["kind"] for result in slices}
    return "‖δ‖, along an eigenvector" if kinds == {"eigenvector"} else "step along d"


def line_facts(result: Slice, among: Collection[Slice]) -> str:
    """Return what is known of a line's direction beside the label of the axis that it shares with others."""
    value = result.directions[0].get("eigenvalue")
    own = "" if value is None or line_label(among) == axis_label(result, 0) else f"λ = {value:.3g}, "
    return f"{own}‖d‖/‖θ‖ = {step_lengths(result)}"
