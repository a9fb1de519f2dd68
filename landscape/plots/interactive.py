"""Slices to turn and to read off, in a browser."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landscape.files import replacing
from landscape.plots.style import COLORS
from landscape.plots.surfaces import axis_label, common_dimension, loss_range, step_lengths
from landscape.results import Array
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
        template="plotly_white",
        xaxis_title=axis_label(next(iter(slices.values())), 0),
        yaxis_title="loss",
        height=420,
        margin_t=30,
    )
    return figure


def _planes(slices: Mapping[str, Slice]) -> Any:
    from plotly.subplots import make_subplots

    low, high = loss_range(slices)
    titles = [
        f"{escape(n)}: L(θ) = {s.center:.3f}, ‖d‖/‖θ‖ = {step_lengths(s)}<br><sub>{s.statement}</sub>"
        for n, s in slices.items()
    ]
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
        for places, mode, names in _on_the_plane(result):
            heights = _heights(result, places)
            figure.add_scatter3d(
                x=places[:, 0],
                y=places[:, 1],
                z=heights,
                mode=mode,
                text=names,
                marker={"size": 3, "color": "white"},
                line={"color": "white", "width": 4},
                textfont={"color": "black"},
                showlegend=False,
                hovertemplate="%{text}<br>loss %{z:.4f}<extra></extra>",
                row=1,
                col=column,
            )
    figure.update_scenes(
        xaxis_title={"text": axis_label(next(iter(slices.values())), 0), "font_size": 11},
        yaxis_title={"text": axis_label(next(iter(slices.values())), 1), "font_size": 11},
        zaxis_title="loss",
        zaxis_range=[low, high],
        aspectmode="cube",  # else plotly stretches each box to its own data, and equal heights look unequal
        camera_eye={"x": 1.75, "y": 1.75, "z": 1.0},
    )
    figure.update_layout(
        template="plotly_white",
        coloraxis={"colorscale": "Cividis", "cmin": low, "cmax": high, "colorbar_title": "loss"},
        height=480,
        margin={"l": 0, "r": 0, "t": 60, "b": 0},
    )
    return figure


def _on_the_plane(result: Slice) -> Iterator[tuple[Array, str, list[str]]]:
    """Yield what lies on a plane: its trajectory, and its marks, with what to call each point."""
    if len(result.trajectory):
        yield result.trajectory, "lines+markers", [f"checkpoint {i}" for i in range(len(result.trajectory))]
    if result.marks:
        names = [escape(mark["name"]) for mark in result.marks]
        yield np.array([mark["at"] for mark in result.marks]), "markers+text", names


def _heights(result: Slice, places: Array) -> Array:
    from scipy.interpolate import RegularGridInterpolator

    surface = RegularGridInterpolator(result.coordinates, result.losses, bounds_error=False)
    return np.asarray(surface(places))


def escape(name: str) -> str:
    """A name may come from a file's path: plotly reads some HTML in titles, so none is let through."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
