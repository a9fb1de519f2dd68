"""From results to pictures and tables: each function draws one result, or several by name, on axes."""

from typing import TYPE_CHECKING

from landscape.runtime.lazy import attributes

if TYPE_CHECKING:
    from landscape.plots.curves import eigenvalue_figure as eigenvalue_figure
    from landscape.plots.curves import eigenvalues as eigenvalues
    from landscape.plots.curves import training_curves as training_curves
    from landscape.plots.forests import forest as forest
    from landscape.plots.interactive import interactive_figure as interactive_figure
    from landscape.plots.interactive import save_html as save_html
    from landscape.plots.levels import contours as contours
    from landscape.plots.monitor import sharpness_figure as sharpness_figure
    from landscape.plots.monitor import sharpness_history as sharpness_history
    from landscape.plots.paths import path as path
    from landscape.plots.paths import path_figure as path_figure
    from landscape.plots.solid import surface_3d as surface_3d
    from landscape.plots.solid import trajectory as trajectory
    from landscape.plots.spectra import broadened as broadened
    from landscape.plots.spectra import spectrum as spectrum
    from landscape.plots.spectra import spectrum_figure as spectrum_figure
    from landscape.plots.spectra import spectrum_ridge as spectrum_ridge
    from landscape.plots.spectra import spectrum_ridge_figure as spectrum_ridge_figure
    from landscape.plots.style import COLORS as COLORS
    from landscape.plots.style import COLUMN as COLUMN
    from landscape.plots.style import PAGE as PAGE
    from landscape.plots.style import paper as paper
    from landscape.plots.style import save_figure as save_figure
    from landscape.plots.surfaces import band as band
    from landscape.plots.surfaces import band_figure as band_figure
    from landscape.plots.surfaces import metric_figure as metric_figure
    from landscape.plots.surfaces import metric_lines as metric_lines
    from landscape.plots.surfaces import quadratic as quadratic
    from landscape.plots.surfaces import quadratic_figure as quadratic_figure
    from landscape.plots.surfaces import surface as surface
    from landscape.plots.surfaces import surface_figure as surface_figure

_PUBLIC = {
    "COLORS": "landscape.plots.style",
    "COLUMN": "landscape.plots.style",
    "PAGE": "landscape.plots.style",
    "band": "landscape.plots.surfaces",
    "band_figure": "landscape.plots.surfaces",
    "broadened": "landscape.plots.spectra",
    "contours": "landscape.plots.levels",
    "eigenvalue_figure": "landscape.plots.curves",
    "eigenvalues": "landscape.plots.curves",
    "forest": "landscape.plots.forests",
    "interactive_figure": "landscape.plots.interactive",
    "metric_figure": "landscape.plots.surfaces",
    "metric_lines": "landscape.plots.surfaces",
    "paper": "landscape.plots.style",
    "path": "landscape.plots.paths",
    "path_figure": "landscape.plots.paths",
    "quadratic": "landscape.plots.surfaces",
    "quadratic_figure": "landscape.plots.surfaces",
    "save_figure": "landscape.plots.style",
    "save_html": "landscape.plots.interactive",
    "sharpness_figure": "landscape.plots.monitor",
    "sharpness_history": "landscape.plots.monitor",
    "spectrum": "landscape.plots.spectra",
    "spectrum_figure": "landscape.plots.spectra",
    "spectrum_ridge": "landscape.plots.spectra",
    "spectrum_ridge_figure": "landscape.plots.spectra",
    "surface": "landscape.plots.surfaces",
    "surface_3d": "landscape.plots.solid",
    "surface_figure": "landscape.plots.surfaces",
    "training_curves": "landscape.plots.curves",
    "trajectory": "landscape.plots.solid",
}
__all__ = list(_PUBLIC)
__getattr__, __dir__ = attributes(__name__, _PUBLIC)
