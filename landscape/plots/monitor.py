"""The sharpness along trainings: eigenvalues, and the edge of stability, over the steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.curvature.history import SharpnessHistory
from landscape.errors import InputError
from landscape.plots.canvas import apart, by_name, panels, titled
from landscape.plots.levels import few_log_ticks
from landscape.plots.style import COLORS, COLUMN, PAGE, paper, shown, subscript

COLUMNS = 3  # panels side by side
FAR = 3  # an edge so many times above all eigenvalues would flatten them on a linear scale


def sharpness_history(
    histories: SharpnessHistory | Mapping[str, SharpnessHistory],
    *,
    ax: Any = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw the largest eigenvalues over the steps of a training, against the edge of stability.

    Where the optimizer has a preconditioner P, the edge is one of P⁻¹H, whose largest eigenvalue is then
    drawn in place of those of H. Open marks have not converged.

    Args:
        histories: of one training, or of several by name; each has a panel.
        ax: axes to draw on, one per training; by default those of a new figure.
        title: of the figure.
        size: width and height of a new figure, in inches.

    Returns:
        The axes; of several trainings, an array of them.

    Raises:
        InputError: a history is empty, or there are not as many axes as trainings.
    """
    histories = by_name(histories)
    if not histories or any(not len(found.steps) for found in histories.values()):
        raise InputError("no measurements to draw; did the training call step of the monitor?")
    with paper():
        columns = min(len(histories), COLUMNS)
        width = COLUMN if columns == 1 else PAGE
        every = panels(ax, len(histories), size or (width, 2.3 * -(-len(histories) // columns)), columns)
        for axes, (name, found) in zip(every, histories.items(), strict=True):
            _draw(axes, found)
            axes.set(xlabel="step")
            if name:
                axes.set_title(shown(name))
            axes.legend()
        return titled(every, title)


sharpness_figure = apart(sharpness_history)


def _draw(axes: Any, found: SharpnessHistory) -> None:
    preconditioned = bool(np.isfinite(found.preconditioned).any())
    if preconditioned:
        axes.plot(found.steps, found.preconditioned, color=COLORS[0], label="λ₁ of P⁻¹H")
    else:
        for i, (values, sure) in enumerate(zip(found.eigenvalues.T, found.converged.T, strict=True)):
            color = COLORS[i % len(COLORS)]
            axes.plot(found.steps, values, color=color, label=f"λ{subscript(i + 1)}")
            open_ = ~sure & np.isfinite(values)
            axes.plot(found.steps[open_], values[open_], "o", ms=3, color=color, mfc="white")
    if np.isfinite(found.thresholds).any():
        axes.plot(found.steps, found.thresholds, "--", color="0.3", label="edge of stability")
        drawn = found.preconditioned if preconditioned else found.eigenvalues
        if np.nanmin(drawn) > 0 and np.nanmin(found.thresholds) > FAR * np.nanmax(drawn):
            axes.set_yscale("log")
            few_log_ticks(axes.yaxis)
    axes.set(ylabel="eigenvalue of P⁻¹H" if preconditioned else "Hessian eigenvalue")
