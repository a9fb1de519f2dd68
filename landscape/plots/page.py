"""A self-contained page: its styles, its script and plotly's are inside it."""

from typing import Any


def page(template: str, title: str, figure: Any, **values: Any) -> str:
    """Render a template to HTML.

    Args:
        template: its text: that of `report.html.j2`, or of a child of it.
        title: of the page.
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
            "columns": 2 if len(panels) == 4 else min(len(panels), 3),
            # Only "<" could end a script early; in JSON it occurs only in strings, where it can be escaped.
            "figure": Markup(figure.to_json().replace("<", "\\u003c")),
            "plotly": Markup(get_plotlyjs()),
        }
    return environment.from_string(template).render(title=title, **values)
