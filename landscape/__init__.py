"""Loss landscapes: surfaces, curvature and sharpness of one frozen loss."""

from typing import TYPE_CHECKING

from landscape.lazy import attributes

if TYPE_CHECKING:
    from landscape.curvature.eigenpairs import Eigenpairs as Eigenpairs
    from landscape.curvature.eigenpairs import top_eigenpairs as top_eigenpairs
    from landscape.curvature.trace import Trace as Trace
    from landscape.curvature.trace import trace as trace
    from landscape.directions import Direction as Direction
    from landscape.directions import random_direction as random_direction
    from landscape.errors import InputError as InputError
    from landscape.flatness.measures import Sharpness as Sharpness
    from landscape.flatness.measures import sharpness as sharpness
    from landscape.objective import Objective as Objective
    from landscape.params import ParamSpace as ParamSpace
    from landscape.results import load as load
    from landscape.surface.sampler import line as line
    from landscape.surface.sampler import plane as plane
    from landscape.surface.slice import Slice as Slice

_PUBLIC = {
    "Direction": "landscape.directions",
    "Eigenpairs": "landscape.curvature.eigenpairs",
    "InputError": "landscape.errors",
    "Objective": "landscape.objective",
    "ParamSpace": "landscape.params",
    "Sharpness": "landscape.flatness.measures",
    "Slice": "landscape.surface.slice",
    "Trace": "landscape.curvature.trace",
    "line": "landscape.surface.sampler",
    "load": "landscape.results",
    "plane": "landscape.surface.sampler",
    "random_direction": "landscape.directions",
    "sharpness": "landscape.flatness.measures",
    "top_eigenpairs": "landscape.curvature.eigenpairs",
    "trace": "landscape.curvature.trace",
}
__all__ = list(_PUBLIC)
__getattr__ = attributes(__name__, _PUBLIC)
