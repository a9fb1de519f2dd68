"""What a report says of sharpness while a model was trained, as a `landscape.Monitor` measured it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from landscape.curvature.history import SharpnessHistory
from landscape.plots.monitor import sharpness_figure
from landscape.runtime.rounding import UNSURE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NEAR = 0.1  # from the edge of stability, as a share of it: at the edge


def section(histories: Mapping[str, SharpnessHistory]) -> dict[str, Any]:
    """Return what the section of a page shows of one training or several, by name."""
    adaptive = sum(map(_adaptive, histories.values()))
    return {
        "sentences": [said for name, found in histories.items() for said in _sentences(name, found)],
        "edge": any(np.isfinite(f.thresholds).any() for f in histories.values() if not _adaptive(f)),
        "width": "column" if len(histories) == 1 else "page",
        "adaptive_width": "column" if adaptive == 1 else "page",
        "rows": {name: _row(found) for name, found in histories.items()},
    }


def pictures(histories: Mapping[str, SharpnessHistory]) -> "dict[str, Figure]":
    """Draw the eigenvalues of H, and those of P⁻¹H apart, where the edge of stability is one of these."""
    measured = {name: found for name, found in histories.items() if np.isfinite(found.eigenvalues).any()}
    adaptive = {name: found for name, found in measured.items() if _adaptive(found)}
    plain = {
        name: replace(found, preconditioned=(none := found.steps * np.nan), thresholds=none)
        if name in adaptive
        else found
        for name, found in measured.items()
    }
    return {
        part: sharpness_figure(of) for part, of in (("training", plain), ("preconditioned", adaptive)) if of
    }


def merged(histories: Mapping[str, SharpnessHistory]) -> dict[str, SharpnessHistory]:
    """Return each training once, under the names of all checkpoints that it has kept."""
    found: dict[str, SharpnessHistory] = {}
    for name, history in histories.items():
        for known, other in found.items():
            if _same(history, other):
                found = {f"{k}, {name}" if k == known else k: v for k, v in found.items()}
                break
        else:
            found[name] = history
    return found


def _same(a: SharpnessHistory, b: SharpnessHistory) -> bool:
    return a.provenance == b.provenance and all(
        np.array_equal(getattr(a, part), getattr(b, part), equal_nan=True)
        for part in ("steps", "losses", "eigenvalues")
    )


def _adaptive(found: SharpnessHistory) -> bool:
    return bool(np.isfinite(found.preconditioned).any())


def _sentences(name: str, found: SharpnessHistory) -> Iterator[str]:
    """Say what is seen: where λ₁ went, where it was in relation to the edge, and what is missing."""
    of = f"{name}: " if name else ""
    known = np.flatnonzero(np.isfinite(found.eigenvalues).any(axis=1))
    if not len(known):
        yield f"{of}No measurement has a finite loss and eigenvalues."
        return
    first, last = known[0], known[-1]
    highest = known[np.argmax(found.eigenvalues[known, 0])]
    if first == last:
        yield f"{of}λ₁ of the Hessian was {_top(found, first)}, the only measurement that has one."
    else:
        yield (
            f"{of}λ₁ of the Hessian went from {_top(found, first)} to {_top(found, last)}. "
            f"Its largest value was {_top(found, highest)}."
        )
    yield of + _at_edge(found)
    lost = int((~np.isfinite(found.eigenvalues[:, 0])).sum())
    open_ = int((~found.converged & np.isfinite(found.eigenvalues)).sum())
    if lost:
        yield f"{of}{lost} of {len(found.steps)} measurements have no eigenvalues."
    if open_:
        yield f"{of}{open_} of {np.isfinite(found.eigenvalues).sum()} eigenvalues have not converged."


def _top(found: SharpnessHistory, at: int) -> str:
    sure = "" if found.converged[at, 0] else UNSURE
    return f"{found.eigenvalues[at, 0]:.4g}{sure} at step {found.steps[at]:.0f}"


def _at_edge(found: SharpnessHistory) -> str:
    """Say where the sharpness was in relation to the edge of stability, in the second half."""
    adaptive = _adaptive(found)
    top = found.preconditioned if adaptive else found.eigenvalues[:, 0]
    ratio = top / found.thresholds
    ratio = ratio[np.isfinite(ratio)]
    if not len(ratio):
        return "The edge of stability of this optimizer and its settings is not known."
    ratio = ratio[len(ratio) // 2 :]
    low, high = float(ratio.min()), float(ratio.max())
    side = "below" if high < 1 - NEAR else "above" if low > 1 + NEAR else "around"
    if side == "around" and low >= 1 - NEAR and high <= 1 + NEAR:
        side = "at"
    times = dict.fromkeys(f"{r:.2f}" if r >= 0.1 else f"{r:.2g}" for r in (low, high))
    return (
        f"In the second half of the measurements, {'λ₁ of P⁻¹H' if adaptive else 'λ₁'} was {side} the edge "
        f"of stability, at {' to '.join(times)} times its value."
    )


def _row(found: SharpnessHistory) -> dict[str, Any]:
    """Return what the measurements cost; None where it is not known."""
    overheads = found.overheads[np.isfinite(found.overheads)]
    return {
        "measurements": len(found.steps),
        "steps": f"{found.steps[0]:.0f} to {found.steps[-1]:.0f}",
        "products": f"{found.products.sum():,.0f}",
        "seconds": f"{np.nansum(found.durations):.1f}",
        "overhead": f"{overheads[-1]:.1%}" if len(overheads) else None,
    }
