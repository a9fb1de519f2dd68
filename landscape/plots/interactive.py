"""Slices in a browser: rotate them, and read off values."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landscape.errors import printable
from landscape.flatness.notation import PLAIN
from landscape.plots.labels import axis_label, line_facts, line_label, mark_label, step_lengths
from landscape.plots.levels import drawn_at, finite, log_floor
from landscape.plots.page import page
from landscape.plots.style import COLORS
from landscape.plots.surfaces import common_dimension, loss_range, of_one_colour
from landscape.storage.files import write_text
from landscape.storage.results import Array
from landscape.surface.slice import Slice

ALONE = '{% extends "report.html.j2" %}{% block report %}{{ self.slices() }}{% endblock %}'
NUMBERS = "<br>loss %{customdata[0]:.5g}<br>rise over L(θ) %{customdata[1]:+.4g}<extra></extra>"
ON_PLANE = f"α %{{x:.4g}}<br>β %{{y:.4g}}{NUMBERS}"
NOTE = {
    "ax": 0,
    "ay": -28,
    "arrowhead": 0,
    "arrowwidth": 1,
    "bgcolor": "white",
    "opacity": 0.85,
    "borderpad": 1,
}
FOOT = 0.12
"""Share of an upward axis that a number takes."""
ON_LINE = f"α %{{x:.4g}}{NUMBERS}"


def interactive_figure(slices: Mapping[str, Slice]) -> Any:
    """Return a plotly figure: lines in one frame, or planes as 3D surfaces side by side, on one scale.

    `layout.meta` holds what the page around the figure shows: the captions of each panel, the linear and the
    logarithmic scale that its switch selects, and with which of them the page opens: that of the picture of
    the same slices (`landscape.plots.surface`). The figure itself is linear; `slices.js` draws each panel as
    a separate plot.

    Args:
        slices: by name of the model.

    Raises:
        InputError: no slices, of different dimensions, or without a finite loss.
    """
    flat = common_dimension(slices) == 1
    scales = _scales(*loss_range(slices))
    opens = "log" if not flat and of_one_colour(slices, *loss_range(slices)) else "linear"
    lines = slices.values() if flat else ()
    captions = [_caption(name, result, lines) for name, result in slices.items()]
    panels = [captions] if flat else [[caption] for caption in captions]
    figure = _lines(slices) if flat else _planes(slices, scales["linear"]["range"])
    return figure.update_layout(
        template="plotly_white",
        margin=dict.fromkeys("lrtb", 0),
        meta={"panels": panels, "scale": opens, **scales},
    )


def save_html(figure: Any, path: Path) -> Path:
    """Write a self-contained page, plotly's code included, with what `interactive_figure` returned.

    Args:
        figure: as `interactive_figure` returned it.
        path: the file; an existing one is replaced.

    Returns:
        The path.
    """
    return write_text(path, page(ALONE, "Loss surfaces", figure))


def _scales(low: float, high: float) -> dict[str, Any]:
    """Return both scales of the loss, from the least and the largest over all slices."""
    high = high if high > low else low + max(1, abs(low))
    epsilon = log_floor(low, high)
    heights = np.log10([epsilon, high - low + epsilon]).tolist()
    logarithm = "log₁₀(L − Lmin + ε)"
    return {
        "least": low,
        "epsilon": epsilon,
        "linear": {"title": "loss", "label": "loss L", "range": [low, high], "ticks": _ticks(low, high)},
        "log": {
            "title": logarithm,
            "label": f"{logarithm}, ε = {epsilon:g}, Lmin = {low:.4g} the least loss shown",
            "range": heights,
            "ticks": _ticks(*heights),
        },
    }


def _ticks(low: float, high: float) -> list[float]:
    """Return where numbers stand on an upward axis: none at its foot, where those of another axis begin."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks if low + FOOT * (high - low) <= tick <= high]


def _caption(name: str, result: Slice, lines: Collection[Slice]) -> dict[str, str]:
    error = result.certificate.standard_error if result.certificate else None
    direction = line_facts(result, lines) if lines else f"‖d‖/‖θ‖ = {step_lengths(result)}"
    facts = f"L(θ) = {PLAIN.number(result.center, error)}, {direction}"
    return {"name": name, "facts": facts, "statement": result.statement}


def _lines(slices: Mapping[str, Slice]) -> Any:
    from plotly import graph_objects as go

    figure = go.Figure()
    for number, (name, result) in enumerate(slices.items()):
        losses = finite(result.losses)
        figure.add_scatter(
            x=result.coordinates[0],
            y=losses.tolist(),
            customdata=_numbers(losses, result),
            hovertemplate=f"<b>{escape(name)}</b><br>{ON_LINE}",
            name=escape(name),
            line_color=COLORS[number % len(COLORS)],
            line_dash=("solid", "dash", "dot")[number // len(COLORS) % 3],
        )
    return figure.update_layout(
        xaxis_title=f"α, {escape(line_label(slices.values()))}",
        yaxis_title="loss",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
    )


def _planes(slices: Mapping[str, Slice], limits: list[float]) -> Any:
    from plotly.subplots import make_subplots

    figure = make_subplots(
        cols=len(slices),
        specs=[[{"type": "surface"}] * len(slices)],
        subplot_titles=[escape(name) for name in slices],
    )
    for column, result in enumerate(slices.values(), start=1):
        x, y = result.coordinates
        losses = finite(result.losses).T  # plotly: a row of y
        figure.add_surface(
            x=x,
            y=y,
            z=losses.tolist(),
            customdata=_numbers(losses, result),
            coloraxis="coloraxis",
            hovertemplate=ON_PLANE,
            row=1,
            col=column,
        )
        for places, mode, names in _on_the_plane(result):
            heights = drawn_at(result, places)
            figure.add_scatter3d(
                x=places[:, 0],
                y=places[:, 1],
                z=heights.tolist(),
                customdata=_numbers(heights, result),
                mode=mode,
                text=names,
                marker={"size": 3, "color": "white", "line": {"color": "black", "width": 1}},
                line={"color": "white", "width": 4},
                showlegend=False,
                hovertemplate=f"%{{text}}<br>{ON_PLANE}",
                row=1,
                col=column,
            )
    for number, result in enumerate(slices.values(), start=1):
        titles = [f"{symbol}, {escape(axis_label(result, axis))}" for axis, symbol in enumerate("αβ")]
        figure.layout[f"scene{number if number > 1 else ''}"].update(
            xaxis_title={"text": titles[0], "font_size": 11},
            yaxis_title={"text": titles[1], "font_size": 11},
            zaxis_title={"text": "loss", "font_size": 11},
            zaxis_range=limits,
            zaxis_tickvals=_ticks(*limits),
            annotations=list(_named(result)),
            **{f"{axis}axis_showbackground": False for axis in "xyz"},  # the page's own shows through
            aspectmode="cube",  # else each box is stretched to its own data, and equal heights look unequal
            camera={"eye": {"x": 1.75, "y": 1.75, "z": 0.9}, "center": {"z": -0.15}},
        )
    return figure.update_layout(
        coloraxis={"colorscale": "Cividis", "cmin": limits[0], "cmax": limits[1], "colorbar_title": "loss"}
    )


def _numbers(losses: Array, result: Slice) -> Array:
    """Return what a hover text shows on both scales: the loss, and its rise over the slice's own L(θ)."""
    return np.stack([losses, losses - result.center], axis=-1)


def _on_the_plane(result: Slice) -> Iterator[tuple[Array, str, list[str]]]:
    """Yield the trajectory and the marks of a plane, with a name for each point."""
    if len(result.trajectory):
        yield result.trajectory, "lines+markers", [f"checkpoint {i}" for i in range(len(result.trajectory))]
    if result.marks:
        names = [escape(mark_label(mark)) for mark in result.marks]
        yield np.array([mark["at"] for mark in result.marks]), "markers", names


def _named(result: Slice) -> Iterator[dict[str, Any]]:
    """Yield the name of each mark as a note above it: a text of the scatter would sink into the surface."""
    if result.marks:
        places = np.array([mark["at"] for mark in result.marks])
        for mark, (x, y), z in zip(result.marks, places.tolist(), drawn_at(result, places), strict=True):
            if np.isfinite(z):
                yield {"x": x, "y": y, "z": float(z), "text": escape(mark_label(mark)), **NOTE}


def escape(name: str) -> str:
    """Escape a name, which may come from a file's path: plotly reads some HTML, and %{…} in hover texts."""
    plain = printable(name).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return plain.replace("%{", "%&#123;")
