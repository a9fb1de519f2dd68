"""Where the links of a Markdown page go."""

import re
from collections.abc import Iterator

_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", flags=re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def links(text: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the anchor of each link to a file of the repository.

    Args:
        text: the page. Code in it has no links.
    """
    for target in _LINK.findall(_CODE.sub("", text)):
        if "://" not in target and not target.startswith("mailto:"):
            path, _, anchor = target.partition("#")
            yield path, anchor
