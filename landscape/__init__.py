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
    from landscape.paths import Path as Path
    from landscape.paths import barrier as barrier
    from landscape.paths import bezier as bezier
    from landscape.results import load as load
    from landscape.surface.certificate import paired_error as paired_error
    from landscape.surface.export import export as export
    from landscape.surface.frames import Frame as Frame
    from landscape.surface.geometry import Quadratic as Quadratic
    from landscape.surface.geometry import quadratic_model as quadratic_model
    from landscape.surface.sampler import line as line
    from landscape.surface.sampler import look as look
    from landscape.surface.sampler import plane as plane
    from landscape.surface.slice import Slice as Slice
    from landscape.surface.topology import Basin as Basin
    from landscape.surface.topology import basins as basins

_PUBLIC = {
    "Basin": "landscape.surface.topology",
    "Direction": "landscape.directions",
    "Eigenpairs": "landscape.curvature.eigenpairs",
    "Frame": "landscape.surface.frames",
    "InputError": "landscape.errors",
    "Objective": "landscape.objective",
    "ParamSpace": "landscape.params",
    "Path": "landscape.paths",
    "Quadratic": "landscape.surface.geometry",
    "Sharpness": "landscape.flatness.measures",
    "Slice": "landscape.surface.slice",
    "Trace": "landscape.curvature.trace",
    "barrier": "landscape.paths",
    "basins": "landscape.surface.topology",
    "bezier": "landscape.paths",
    "export": "landscape.surface.export",
    "line": "landscape.surface.sampler",
    "load": "landscape.results",
    "look": "landscape.surface.sampler",
    "paired_error": "landscape.surface.certificate",
    "plane": "landscape.surface.sampler",
    "quadratic_model": "landscape.surface.geometry",
    "random_direction": "landscape.directions",
    "sharpness": "landscape.flatness.measures",
    "top_eigenpairs": "landscape.curvature.eigenpairs",
    "trace": "landscape.curvature.trace",
}
__all__ = list(_PUBLIC)
__getattr__ = attributes(__name__, _PUBLIC)
