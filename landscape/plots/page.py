"""A page that needs nothing else: its styles, its script and plotly's stand in it."""

from typing import Any


def page(template: str, title: str, figure: Any, **values: Any) -> str:
    """Return the HTML of a template: the text of one, `report.html.j2` or a child of it.

    Args:
        figure: what `landscape.plots.interactive.interactive_figure` returned.
        values: what else the template shows. All of it is escaped.
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
    panels = figure.layout.meta["panels"]
    return environment.from_string(template).render(
        title=title,
        panels=panels,
        columns=2 if len(panels) == 4 else min(len(panels), 3),
        # Within a script only "<" could end it; in JSON it stands in strings alone, where it may be a code.
        figure=Markup(figure.to_json().replace("<", "\\u003c")),
        plotly=Markup(get_plotlyjs()),
        **values,
    )
