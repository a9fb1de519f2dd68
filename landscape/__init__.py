"""Loss landscapes: surfaces, curvature and sharpness of one frozen loss."""

from typing import TYPE_CHECKING

from landscape.runtime.lazy import attributes

if TYPE_CHECKING:
    from landscape.curvature.callbacks import lightning_callback as lightning_callback
    from landscape.curvature.callbacks import transformers_callback as transformers_callback
    from landscape.curvature.density import SpectralDensity as SpectralDensity
    from landscape.curvature.density import spectral_density as spectral_density
    from landscape.curvature.eigenpairs import Eigenpairs as Eigenpairs
    from landscape.curvature.eigenpairs import top_eigenpairs as top_eigenpairs
    from landscape.curvature.history import SharpnessHistory as SharpnessHistory
    from landscape.curvature.history import SharpnessRecord as SharpnessRecord
    from landscape.curvature.matrix import Operator as Operator
    from landscape.curvature.monitor import Monitor as Monitor
    from landscape.curvature.operators import empirical_fisher as empirical_fisher
    from landscape.curvature.operators import gauss_newton as gauss_newton
    from landscape.curvature.operators import hessian as hessian
    from landscape.curvature.spectrum import Spectrum as Spectrum
    from landscape.curvature.spectrum import spectrum as spectrum
    from landscape.curvature.trace import Diagonal as Diagonal
    from landscape.curvature.trace import FrobeniusNorm as FrobeniusNorm
    from landscape.curvature.trace import Trace as Trace
    from landscape.curvature.trace import diagonal as diagonal
    from landscape.curvature.trace import frobenius_norm as frobenius_norm
    from landscape.curvature.trace import trace as trace
    from landscape.errors import InputError as InputError
    from landscape.flatness.bounds import Bound as Bound
    from landscape.flatness.bounds import pac_bayes_bound as pac_bayes_bound
    from landscape.flatness.comparison import compare as compare
    from landscape.flatness.measures import Measurement as Measurement
    from landscape.flatness.measures import Sharpness as Sharpness
    from landscape.flatness.measures import sharpness as sharpness
    from landscape.flatness.measures import sharpness_by_group as sharpness_by_group
    from landscape.flatness.words import verdict as verdict
    from landscape.objective.cross_entropy import linear_cross_entropy as linear_cross_entropy
    from landscape.objective.objective import Objective as Objective
    from landscape.objective.params import ParamSpace as ParamSpace
    from landscape.objective.streams import streamed as streamed
    from landscape.objective.supervised import supervised as supervised
    from landscape.objective.training_mode import in_training_mode as in_training_mode
    from landscape.runtime.devices import device_named as device_named
    from landscape.storage.results import load as load
    from landscape.storage.weights import load_weights as load_weights
    from landscape.storage.weights import weights_of as weights_of
    from landscape.surface.barriers import barriers as barriers
    from landscape.surface.certificate import paired_error as paired_error
    from landscape.surface.directions import Direction as Direction
    from landscape.surface.directions import coordinates as coordinates
    from landscape.surface.directions import random_direction as random_direction
    from landscape.surface.export import export as export
    from landscape.surface.frames import Frame as Frame
    from landscape.surface.frames import between_frame as between_frame
    from landscape.surface.frames import eigen_frame as eigen_frame
    from landscape.surface.frames import trajectory_frame as trajectory_frame
    from landscape.surface.geometry import Quadratic as Quadratic
    from landscape.surface.geometry import quadratic_model as quadratic_model
    from landscape.surface.paths import PathProfile as PathProfile
    from landscape.surface.paths import barrier as barrier
    from landscape.surface.paths import bezier as bezier
    from landscape.surface.sampler import evaluate_slice as evaluate_slice
    from landscape.surface.sampler import line as line
    from landscape.surface.sampler import plane as plane
    from landscape.surface.slice import Certificate as Certificate
    from landscape.surface.slice import Slice as Slice
    from landscape.surface.surfaces import Surfaces as Surfaces
    from landscape.surface.surfaces import surfaces as surfaces
    from landscape.surface.topology import Basin as Basin
    from landscape.surface.topology import basins as basins
    from landscape.tasks import FactCurve as FactCurve
    from landscape.tasks import FactRow as FactRow
    from landscape.tasks import Facts as Facts
    from landscape.tasks import FactTable as FactTable
    from landscape.tasks import TaskOptions as TaskOptions
    from landscape.tasks import objectives_of as objectives_of

_PUBLIC = {
    "Basin": "landscape.surface.topology",
    "Bound": "landscape.flatness.bounds",
    "Certificate": "landscape.surface.slice",
    "Diagonal": "landscape.curvature.trace",
    "Direction": "landscape.surface.directions",
    "Eigenpairs": "landscape.curvature.eigenpairs",
    "FactCurve": "landscape.tasks",
    "FactRow": "landscape.tasks",
    "FactTable": "landscape.tasks",
    "Facts": "landscape.tasks",
    "Frame": "landscape.surface.frames",
    "FrobeniusNorm": "landscape.curvature.trace",
    "InputError": "landscape.errors",
    "Measurement": "landscape.flatness.measures",
    "Monitor": "landscape.curvature.monitor",
    "Objective": "landscape.objective.objective",
    "Operator": "landscape.curvature.matrix",
    "ParamSpace": "landscape.objective.params",
    "PathProfile": "landscape.surface.paths",
    "Quadratic": "landscape.surface.geometry",
    "Sharpness": "landscape.flatness.measures",
    "SharpnessHistory": "landscape.curvature.history",
    "SharpnessRecord": "landscape.curvature.history",
    "Slice": "landscape.surface.slice",
    "SpectralDensity": "landscape.curvature.density",
    "Spectrum": "landscape.curvature.spectrum",
    "Surfaces": "landscape.surface.surfaces",
    "TaskOptions": "landscape.tasks",
    "Trace": "landscape.curvature.trace",
    "barrier": "landscape.surface.paths",
    "barriers": "landscape.surface.barriers",
    "basins": "landscape.surface.topology",
    "between_frame": "landscape.surface.frames",
    "bezier": "landscape.surface.paths",
    "compare": "landscape.flatness.comparison",
    "coordinates": "landscape.surface.directions",
    "device_named": "landscape.runtime.devices",
    "diagonal": "landscape.curvature.trace",
    "eigen_frame": "landscape.surface.frames",
    "empirical_fisher": "landscape.curvature.operators",
    "evaluate_slice": "landscape.surface.sampler",
    "export": "landscape.surface.export",
    "frobenius_norm": "landscape.curvature.trace",
    "gauss_newton": "landscape.curvature.operators",
    "hessian": "landscape.curvature.operators",
    "in_training_mode": "landscape.objective.training_mode",
    "lightning_callback": "landscape.curvature.callbacks",
    "line": "landscape.surface.sampler",
    "linear_cross_entropy": "landscape.objective.cross_entropy",
    "load": "landscape.storage.results",
    "load_weights": "landscape.storage.weights",
    "objectives_of": "landscape.tasks",
    "pac_bayes_bound": "landscape.flatness.bounds",
    "paired_error": "landscape.surface.certificate",
    "plane": "landscape.surface.sampler",
    "quadratic_model": "landscape.surface.geometry",
    "random_direction": "landscape.surface.directions",
    "sharpness": "landscape.flatness.measures",
    "sharpness_by_group": "landscape.flatness.measures",
    "spectral_density": "landscape.curvature.density",
    "spectrum": "landscape.curvature.spectrum",
    "streamed": "landscape.objective.streams",
    "supervised": "landscape.objective.supervised",
    "surfaces": "landscape.surface.surfaces",
    "top_eigenpairs": "landscape.curvature.eigenpairs",
    "trace": "landscape.curvature.trace",
    "trajectory_frame": "landscape.surface.frames",
    "transformers_callback": "landscape.curvature.callbacks",
    "verdict": "landscape.flatness.words",
    "weights_of": "landscape.storage.weights",
}
__all__ = list(_PUBLIC)
__getattr__, __dir__ = attributes(__name__, _PUBLIC)
