"""The sharpness along trainings: eigenvalues, and the edge of stability, over the steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from landscape.curvature.history import SharpnessHistory
from landscape.errors import InputError
from landscape.plots.canvas import apart, by_name, figure_of, is_new, panels, titled
from landscape.plots.levels import few_log_ticks
from landscape.plots.style import COLORS, COLUMN, LOSS_MAP, PAGE, paper, shown, subscript

COLUMNS = 3  # panels side by side
LEGEND = -0.25  # below the axis and its label, in heights of the axes: lines fill all of the frame
FAR = 3  # an edge so many times above all eigenvalues would flatten them on a linear scale


def sharpness_history(
    histories: SharpnessHistory | Mapping[str, SharpnessHistory],
    *,
    ax: Any = None,
    title: str | None = None,
    size: tuple[float, float] | None = None,
) -> Any:
    """Draw the largest eigenvalues over the steps of a training, against the edge of stability.

    Where the optimizer has a preconditioner P, the edge is that of P⁻¹H, whose largest eigenvalue is then
    drawn in place of those of H. Open marks show eigenvalues that have not converged.

    Args:
        histories: the history of one training, or those of several by name; each has a panel.
        ax: axes to draw on, one per training; by default those of a new figure.
        title: title of the figure.
        size: width and height of a new figure, in inches.

    Returns:
        The axes; of several trainings, an array of them.

    Raises:
        InputError: a history is empty, or there are not as many axes as trainings.
    """
    histories = by_name(histories)
    if not histories or any(not len(found.steps) for found in histories.values()):
        raise InputError("no measurements to draw; was monitor.step() called, and did at_most leave time?")
    with paper():
        columns = min(len(histories), COLUMNS)
        width = COLUMN if columns == 1 else PAGE
        every = panels(ax, len(histories), size or (width, 2.3 * -(-len(histories) // columns)), columns)
        colors = _colors(max(found.eigenvalues.shape[1] for found in histories.values()))
        lines: dict[str, Any] = {}
        for axes, (name, found) in zip(every, histories.items(), strict=True):
            _draw(axes, found, colors)
            axes.set(xlabel="step")
            if name:
                axes.set_title(shown(name))
            handles, labels = axes.get_legend_handles_labels()
            lines |= dict(zip(labels, handles, strict=True))
        if len(every) > 1 and is_new(ax):
            figure_of(every).legend(
                handles=list(lines.values()), loc="outside lower center", ncols=len(lines)
            )
        else:
            for axes in every:
                axes.legend(loc="upper center", bbox_to_anchor=(0.5, LEGEND), ncols=3)
        return titled(every, title)


sharpness_figure = apart(sharpness_history)


def _colors(count: int) -> dict[str, Any]:
    """Return the colours of eigenvalues by their labels; of many, only the first and the last have one."""
    from matplotlib import colormaps

    few = count <= len(COLORS)
    shades = COLORS if few else colormaps[LOSS_MAP](np.linspace(0.1, 0.9, count))
    return {
        f"{'' if few or i in (0, count - 1) else '_'}λ{subscript(i + 1)}": shades[i] for i in range(count)
    }


def _draw(axes: Any, found: SharpnessHistory, colors: Mapping[str, Any]) -> None:
    preconditioned = bool(np.isfinite(found.preconditioned).any())
    if preconditioned:
        axes.plot(found.steps, found.preconditioned, color=COLORS[0], label="λ₁ of P⁻¹H")
    else:
        for values, sure, (label, color) in zip(
            found.eigenvalues.T, found.converged.T, colors.items(), strict=False
        ):
            axes.plot(found.steps, values, color=color, label=label)
            open_ = ~sure & np.isfinite(values)
            axes.plot(found.steps[open_], values[open_], "o", ms=3, color=color, mfc="white")
    if np.isfinite(found.thresholds).any():
        axes.plot(found.steps, found.thresholds, "--", color="0.3", label="edge of stability")
        drawn = found.preconditioned if preconditioned else found.eigenvalues
        if np.nanmin(drawn) > 0 and np.nanmin(found.thresholds) > FAR * np.nanmax(drawn):
            axes.set_yscale("log")
            few_log_ticks(axes.yaxis)
    axes.set(ylabel="eigenvalue of P⁻¹H" if preconditioned else "Hessian eigenvalue")
