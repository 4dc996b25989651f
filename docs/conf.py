"""The site: every page of docs/ and the READMEs, as they stand in the repository. Build it with: sphinx-build -W -c docs . build/site"""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]

project = "rectune"
copyright = "The rectune founders"
extensions = ["myst_parser"]
root_doc = "docs/index"
# The source is the repository's root, so that links between its documents hold here as they hold there.
include_patterns = ["*.md", "docs/*.md", "docs/*.ipynb", "docs/index.rst", "[!.]*/README.md", "recipes/results/*.md"]
html_theme = "furo"  # brings its own scripts and fonts: the site opens offline
html_title = "rectune"
html_copy_source = False
html_show_sphinx = False
myst_heading_anchors = 3


class Notebook(MystParser):
    """A notebook is a page: its text, and its code as blocks."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Read the cells of a notebook as one Markdown text."""
        cells = json.loads(inputstring)["cells"]
        texts = ["".join(cell["source"]) for cell in cells]
        code = [cell["cell_type"] == "code" for cell in cells]
        pairs = zip(texts, code, strict=True)
        super().parse("\n\n".join(f"```ipython\n{text}\n```" if is_code else text for text, is_code in pairs), document)


def folders(app: Sphinx, doctree: nodes.document) -> None:
    """A link to a folder of the repository is plain words here."""
    for link in list(doctree.findall(pending_xref)):
        if (ROOT / link["refdoc"]).parent.joinpath(link["reftarget"]).is_dir():
            link.replace_self(link.children)


def front_door(app: Sphinx, error: Exception | None) -> None:
    """Pages keep the folders of the repository; the site's own address leads to the index of pages."""
    if error is None and app.builder.format == "html":
        Path(app.outdir, "index.html").write_text('<meta http-equiv="refresh" content="0; url=docs/index.html">\n')


def setup(app: Sphinx) -> None:
    """What Sphinx calls first."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(Notebook)
    app.connect("doctree-read", folders)
    app.connect("build-finished", front_door)
