"""From results to pictures and one report."""

from typing import TYPE_CHECKING

from landscape.runtime.lazy import attributes

if TYPE_CHECKING:
    from landscape.plots.curves import eigenvalue_figure as eigenvalue_figure
    from landscape.plots.interactive import interactive_figure as interactive_figure
    from landscape.plots.interactive import save_html as save_html
    from landscape.plots.paths import path_figure as path_figure
    from landscape.plots.spectra import broadened as broadened
    from landscape.plots.spectra import spectrum_figure as spectrum_figure
    from landscape.plots.style import COLORS as COLORS
    from landscape.plots.style import COLUMN as COLUMN
    from landscape.plots.style import PAGE as PAGE
    from landscape.plots.style import paper as paper
    from landscape.plots.style import save_figure as save_figure
    from landscape.plots.surfaces import band_figure as band_figure
    from landscape.plots.surfaces import contours as contours
    from landscape.plots.surfaces import metric_figure as metric_figure
    from landscape.plots.surfaces import quadratic_figure as quadratic_figure
    from landscape.plots.surfaces import surface_figure as surface_figure

_PUBLIC = {
    "COLORS": "landscape.plots.style",
    "COLUMN": "landscape.plots.style",
    "PAGE": "landscape.plots.style",
    "band_figure": "landscape.plots.surfaces",
    "broadened": "landscape.plots.spectra",
    "contours": "landscape.plots.surfaces",
    "eigenvalue_figure": "landscape.plots.curves",
    "interactive_figure": "landscape.plots.interactive",
    "metric_figure": "landscape.plots.surfaces",
    "paper": "landscape.plots.style",
    "path_figure": "landscape.plots.paths",
    "quadratic_figure": "landscape.plots.surfaces",
    "save_figure": "landscape.plots.style",
    "save_html": "landscape.plots.interactive",
    "spectrum_figure": "landscape.plots.spectra",
    "surface_figure": "landscape.plots.surfaces",
}
__all__ = list(_PUBLIC)
__getattr__ = attributes(__name__, _PUBLIC)
