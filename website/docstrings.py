"""What Griffe has to know of the docstrings of this house."""

import re
from typing import Any

from griffe import Extension, Object

_SHARED = re.compile(r"^( +)(\w+)((?:, \w+)+): (.*(?:\n\1 +.*)*)", flags=re.MULTILINE)


class SharedLines(Extension):
    """Give each of several names that share a line of `Args:` or `Attributes:` a line of its own."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of what was loaded."""
        if obj.docstring:
            obj.docstring.value = _SHARED.sub(_apart, obj.docstring.value)


def _apart(line: re.Match[str]) -> str:
    indent, first, others, text = line.groups()
    names = others.removeprefix(", ").split(", ")
    return "\n".join([f"{indent}{first}: {text}", *(f"{indent}{name}: See `{first}`." for name in names)])
