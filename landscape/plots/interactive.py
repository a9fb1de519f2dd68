"""Slices to turn and to read off, in a browser."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from landscape.files import replacing
from landscape.plots.style import COLORS
from landscape.plots.surfaces import common_dimension, loss_range, step_lengths
from landscape.surface.slice import Slice


def interactive_figure(slices: Mapping[str, Slice]) -> Any:
    """Return a plotly figure: lines in one frame, or planes as 3D surfaces side by side, on one scale."""
    return _lines(slices) if common_dimension(slices) == 1 else _planes(slices)


def save_html(figure: Any, path: Path) -> Path:
    """Write a page that needs nothing else, plotly's code included."""
    with replacing(path) as temporary:
        temporary.write_text(figure.to_html(include_plotlyjs=True, full_html=True), "utf-8")
    return path


def _lines(slices: Mapping[str, Slice]) -> Any:
    from plotly import graph_objects as go

    figure = go.Figure()
    for (name, result), color in zip(slices.items(), COLORS * len(slices), strict=False):
        figure.add_scatter(x=result.coordinates[0], y=result.losses, name=escape(name), line_color=color)
    figure.update_layout(
        template="plotly_white", xaxis_title="step along d", yaxis_title="loss", height=420, margin_t=30
    )
    return figure


def _planes(slices: Mapping[str, Slice]) -> Any:
    from plotly.subplots import make_subplots

    low, high = loss_range(slices)
    titles = [f"{escape(n)}: L(θ) = {s.center:.3f}, ‖d‖/‖θ‖ = {step_lengths(s)}" for n, s in slices.items()]
    figure = make_subplots(
        cols=len(slices),
        specs=[[{"type": "surface"}] * len(slices)],
        subplot_titles=titles,
        horizontal_spacing=0.02,
    )
    for column, result in enumerate(slices.values(), start=1):
        x, y = result.coordinates
        figure.add_surface(
            x=x,
            y=y,
            z=result.losses.T,
            coloraxis="coloraxis",
            hovertemplate="d₁ %{x:.3f}<br>d₂ %{y:.3f}<br>loss %{z:.4f}<extra></extra>",
            row=1,
            col=column,
        )
    figure.update_scenes(
        xaxis_title="d₁",
        yaxis_title="d₂",
        zaxis_title="loss",
        zaxis_range=[low, high],
        aspectmode="cube",  # else plotly stretches each box to its own data, and equal heights look unequal
        camera_eye={"x": 1.75, "y": 1.75, "z": 1.0},
    )
    figure.update_layout(
        template="plotly_white",
        coloraxis={"colorscale": "Cividis", "cmin": low, "cmax": high, "colorbar_title": "loss"},
        height=480,
        margin={"l": 0, "r": 0, "t": 50, "b": 0},
    )
    return figure


def escape(name: str) -> str:
    """A name may come from a file's path: plotly reads some HTML in titles, so none is let through."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
