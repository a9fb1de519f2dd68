"""The files of pictures that a command leaves in a folder."""

from collections.abc import Mapping
from pathlib import Path

from landscape.curvature.spectrum import Spectrum
from landscape.plots.animation import save_animation
from landscape.plots.canvas import APART, figure_of
from landscape.plots.interactive import interactive_figure, save_html
from landscape.plots.paths import path_figure
from landscape.plots.solid import trajectory_figure
from landscape.plots.spectra import spectrum_figure
from landscape.plots.style import save_figures
from landscape.plots.surfaces import metric_figure, quadratic_figure
from landscape.surface.paths import PathProfile
from landscape.surface.surfaces import Surfaces


def save_surfaces(found: Surfaces, folder: Path, animate: bool = False) -> list[Path]:
    """Draw surfaces: one figure for all (a band where lines have several seeds), quadratic models, metrics.

    Args:
        found: what `surfaces` returned.
        folder: where surface.png, .pdf and .html go, LABEL.quadratic.png and .pdf, and metrics.png and .pdf;
            for trajectories, trajectory.png and .pdf.
        animate: write each trajectory as LABEL.gif too.

    Returns:
        The files.
    """
    figures = {"surface": figure_of(found.plot(ax=APART))}
    figures |= {
        f"{label}.quadratic": quadratic_figure(found.slices[label], model)
        for label, model in found.quadratics.items()
    }
    if any("trajectory" in result.settings for result in found.slices.values()):
        figures["trajectory"] = trajectory_figure(found.slices)
    if found.metrics:
        drawn = {"loss": found.slices, **found.metrics}
        figures["metrics"] = metric_figure({name: found.by_model(of) for name, of in drawn.items()})
    pictures = save_figures(figures, folder)
    if animate:
        pictures += [save_animation(s, folder / f"{label}.gif", label) for label, s in found.slices.items()]
    return [*pictures, save_html(interactive_figure(found.slices), folder / "surface.html")]


def save_densities(spectra: Mapping[str, Spectrum], folder: Path) -> list[Path]:
    """Draw the spectral densities of all that have one, with their eigenvalues, as density.png and .pdf."""
    densities = {name: found.density for name, found in spectra.items() if found.density}
    ticks = {name: spectra[name].pairs for name in densities}
    return save_figures({"density": spectrum_figure(densities, ticks)}, folder)


def save_paths(start: str, paths: Mapping[str, PathProfile], folder: Path) -> list[Path]:
    """Draw the paths from one model, by a label that says to which they lead, as path.png and .pdf."""
    return save_figures(
        {"path": path_figure({f"{start} to {to}": path for to, path in paths.items()})}, folder
    )
