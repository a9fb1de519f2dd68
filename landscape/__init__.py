"""Loss landscapes: surfaces, curvature and sharpness of one frozen loss."""

from typing import TYPE_CHECKING

from landscape.lazy import attributes

if TYPE_CHECKING:
    from landscape.curvature.density import SpectralDensity as SpectralDensity
    from landscape.curvature.density import spectral_density as spectral_density
    from landscape.curvature.eigenpairs import Eigenpairs as Eigenpairs
    from landscape.curvature.eigenpairs import top_eigenpairs as top_eigenpairs
    from landscape.curvature.operators import Operator as Operator
    from landscape.curvature.operators import empirical_fisher as empirical_fisher
    from landscape.curvature.operators import gauss_newton as gauss_newton
    from landscape.curvature.operators import hessian as hessian
    from landscape.curvature.trace import Diagonal as Diagonal
    from landscape.curvature.trace import FrobeniusNorm as FrobeniusNorm
    from landscape.curvature.trace import Trace as Trace
    from landscape.curvature.trace import diagonal as diagonal
    from landscape.curvature.trace import frobenius_norm as frobenius_norm
    from landscape.curvature.trace import trace as trace
    from landscape.devices import device_named as device_named
    from landscape.directions import Direction as Direction
    from landscape.directions import coordinates as coordinates
    from landscape.directions import random_direction as random_direction
    from landscape.errors import InputError as InputError
    from landscape.flatness.bounds import Bound as Bound
    from landscape.flatness.bounds import pac_bayes_bound as pac_bayes_bound
    from landscape.flatness.comparison import compare as compare
    from landscape.flatness.measures import Sharpness as Sharpness
    from landscape.flatness.measures import sharpness as sharpness
    from landscape.flatness.measures import sharpness_by_group as sharpness_by_group
    from landscape.flatness.tables import verdict as verdict
    from landscape.objective import Objective as Objective
    from landscape.params import ParamSpace as ParamSpace
    from landscape.paths import Path as Path
    from landscape.paths import barrier as barrier
    from landscape.paths import bezier as bezier
    from landscape.results import load as load
    from landscape.supervision import supervised as supervised
    from landscape.surface.certificate import paired_error as paired_error
    from landscape.surface.export import export as export
    from landscape.surface.frames import Frame as Frame
    from landscape.surface.frames import between_frame as between_frame
    from landscape.surface.frames import eigen_frame as eigen_frame
    from landscape.surface.frames import trajectory_frame as trajectory_frame
    from landscape.surface.geometry import Quadratic as Quadratic
    from landscape.surface.geometry import quadratic_model as quadratic_model
    from landscape.surface.sampler import line as line
    from landscape.surface.sampler import look as look
    from landscape.surface.sampler import plane as plane
    from landscape.surface.slice import Slice as Slice
    from landscape.surface.topology import Basin as Basin
    from landscape.surface.topology import basins as basins
    from landscape.tasks import TaskOptions as TaskOptions
    from landscape.tasks import objectives_of as objectives_of
    from landscape.weights import load_weights as load_weights
    from landscape.weights import weights_of as weights_of

_PUBLIC = {
    "Basin": "landscape.surface.topology",
    "Bound": "landscape.flatness.bounds",
    "Diagonal": "landscape.curvature.trace",
    "Direction": "landscape.directions",
    "Eigenpairs": "landscape.curvature.eigenpairs",
    "Frame": "landscape.surface.frames",
    "FrobeniusNorm": "landscape.curvature.trace",
    "InputError": "landscape.errors",
    "Objective": "landscape.objective",
    "Operator": "landscape.curvature.operators",
    "ParamSpace": "landscape.params",
    "Path": "landscape.paths",
    "Quadratic": "landscape.surface.geometry",
    "Sharpness": "landscape.flatness.measures",
    "Slice": "landscape.surface.slice",
    "SpectralDensity": "landscape.curvature.density",
    "TaskOptions": "landscape.tasks",
    "Trace": "landscape.curvature.trace",
    "barrier": "landscape.paths",
    "basins": "landscape.surface.topology",
    "between_frame": "landscape.surface.frames",
    "bezier": "landscape.paths",
    "compare": "landscape.flatness.comparison",
    "coordinates": "landscape.directions",
    "device_named": "landscape.devices",
    "diagonal": "landscape.curvature.trace",
    "eigen_frame": "landscape.surface.frames",
    "empirical_fisher": "landscape.curvature.operators",
    "export": "landscape.surface.export",
    "frobenius_norm": "landscape.curvature.trace",
    "gauss_newton": "landscape.curvature.operators",
    "hessian": "landscape.curvature.operators",
    "line": "landscape.surface.sampler",
    "load": "landscape.results",
    "load_weights": "landscape.weights",
    "look": "landscape.surface.sampler",
    "objectives_of": "landscape.tasks",
    "pac_bayes_bound": "landscape.flatness.bounds",
    "paired_error": "landscape.surface.certificate",
    "plane": "landscape.surface.sampler",
    "quadratic_model": "landscape.surface.geometry",
    "random_direction": "landscape.directions",
    "sharpness": "landscape.flatness.measures",
    "sharpness_by_group": "landscape.flatness.measures",
    "spectral_density": "landscape.curvature.density",
    "supervised": "landscape.supervision",
    "top_eigenpairs": "landscape.curvature.eigenpairs",
    "trace": "landscape.curvature.trace",
    "trajectory_frame": "landscape.surface.frames",
    "verdict": "landscape.flatness.tables",
    "weights_of": "landscape.weights",
}
__all__ = list(_PUBLIC)
__getattr__ = attributes(__name__, _PUBLIC)
