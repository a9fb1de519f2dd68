"""LaTeX to MathML, which browsers draw without a script, a font or a network.

`pymdownx.arithmatex` finds the formulas: `$…$` and `$$…$$`, as on GitHub.
"""

import html
import re

from latex2mathml.converter import convert

_BARS = re.compile("<mo>(&#x0007C;|&#x02016;)</mo>")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL)


def with_mathml(page: str) -> str:
    """Replace the formulas of a page's HTML by MathML.

    Raises:
        ValueError: a formula has a command that has no MathML.
    """
    return _FORMULA.sub(_mathml, page)


def _mathml(formula: re.Match[str]) -> str:
    tag, latex = formula[1], html.unescape(formula[2])
    found = convert(latex, display="block" if tag == "div" else "inline")
    if "\\" in found:
        raise ValueError(f"no MathML for this formula: {latex}")
    found = _BARS.sub(
        r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', found
    )  # they enclose, not compare
    return f'<{tag} class="formula">{found}</{tag}>'
