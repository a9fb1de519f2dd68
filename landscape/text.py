"""Text that came from outside, made fit to be shown: names, paths, what a file says."""


def printable(text: str) -> str:
    """Return `text` with what a terminal would act on (control characters, escape sequences) written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters: where it is longer, its middle is left out."""
    if len(text) <= most:
        return text
    tail = (most - 3) // 3
    return f"{text[: most - 3 - tail]} … {text[-tail:]}"
