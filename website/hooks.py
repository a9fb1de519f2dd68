"""What MkDocs calls while it builds.

The site's tree is the repository's, so that a link in a page means the same on GitHub and here.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from website.formulas import with_mathml
from website.generated import generated
from website.links import links

ROOT = Path(__file__).parents[1]
SHOWN = (
    "*.md",
    "docs/*.md",
    "docs/howto/*.md",
    "examples/*.md",
    "benchmarks/*.md",
    "examples/pictures/*.png",
    "figures/gallery/*.md",
    "figures/gallery/*.png",
    "website/*.css",
    "website/*.js",
)


HIDDEN = {"index.html": ["navigation", "toc"], "docs/gallery.html": ["navigation", "toc"]}
"""What would stand beside a page that needs the width."""
MOVED = {"docs/index.md": "index.html", "README.md": "readme.html"}
"""The page of a site that opens first is not what GitHub shows first."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Show the repository's pages, what they link to, and the pages that are made from its code."""
    pages = {path for pattern in SHOWN for path in ROOT.glob(pattern)}
    theme = [file for file in files if file.src_dir != config.docs_dir]
    found = Files([*theme, *(_file(path, config) for path in sorted(pages | _linked(pages)))])
    for name, content in generated(ROOT):
        found.append(File.generated(config, name, content=content))
    return found


def on_page_markdown(text: str, page: Page, **_: Any) -> str:
    r"""Take \| in the code of a table for |, as GitHub does; Python-Markdown keeps the backslash."""
    page.meta["hide"] = HIDDEN.get(page.file.url, [])
    return re.sub(r"^\|.*$", lambda row: re.sub(r"`[^`]*`", _unescaped, row[0]), text, flags=re.MULTILINE)


def on_page_content(html: str, **_: Any) -> str:
    """Render the formulas."""
    return with_mathml(html)


def _unescaped(code: re.Match[str]) -> str:
    return code[0].replace(r"\|", "|")


def _linked(pages: set[Path]) -> set[Path]:
    """Return the files that the pages link to."""
    targets = {
        (page.parent / path).resolve()
        for page in pages
        if page.suffix == ".md"
        for path, _ in links(page.read_text("utf-8"))
    }
    return {path for path in targets if path.is_file() and path.is_relative_to(ROOT)}


def _file(path: Path, config: MkDocsConfig) -> File:
    name = path.relative_to(ROOT).as_posix()
    return File(name, str(ROOT), config.site_dir, config.use_directory_urls, dest_uri=MOVED.get(name))
