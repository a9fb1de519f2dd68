"""A self-contained page: its styles, its script and plotly's are inside it."""

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from landscape.errors import encodable
from landscape.plots.canvas import columns_of
from landscape.plots.style import paper

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def page(template: str, title: str, figure: Any, **values: Any) -> str:
    """Render a template to HTML.

    Args:
        template: its text: that of `report.html.j2`, or of a child of it.
        title: title of the page.
        figure: what `landscape.plots.interactive.interactive_figure` returned; None for a page without.
        values: other values for the template. All are escaped.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("landscape.plots", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    if figure is not None:
        panels = figure.layout.meta["panels"]
        values |= {
            "panels": panels,
            "columns": columns_of(len(panels)),
            # Only "<" could end a script early; in JSON it occurs only in strings, where it can be escaped.
            "figure": Markup(figure.to_json().replace("<", "\\u003c")),
            "plotly": Markup(get_plotlyjs()),
        }
    return encodable(environment.from_string(template).render(title=title, **values))


def embedded(figures: "Mapping[str, Figure]") -> dict[str, str]:
    """Return figures as the sources of images, by the same names."""
    found = {}
    for name, figure in figures.items():
        buffer = io.BytesIO()
        with paper():
            figure.savefig(buffer, format="png", dpi=200)
        found[name] = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return found
