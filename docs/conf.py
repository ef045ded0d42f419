"""Sphinx configuration. Nothing in the built pages is loaded from elsewhere: they work from disk, offline."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

import avtune  # noqa: E402
import docs_tables  # noqa: E402

project = "avtune"
copyright = "the avtune authors"
author = "the avtune authors"
release = version = avtune.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build", "_templates"]
templates_path = ["_templates"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_default_options = {"no-value": True}
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True
toc_object_entries = False

html_theme = "furo"
html_title = "avtune"
html_static_path = ["_static"]
html_css_files = ["avtune.css"]
html_show_sphinx = False
html_copy_source = False
smartquotes_action = "D"  # dashes alone: quotation marks stay as they are typed
pygments_style = "friendly"
pygments_dark_style = "github-dark"


def _prepare(app: Sphinx) -> None:
    """Make the tables that pages include; remove what an earlier reference asked for and this one does not."""
    docs_tables.write_pages(HERE / "api" / "tables")
    wanted = (HERE / "reference.md").read_text(encoding="utf-8").split()
    for page in (HERE / "api").glob("*.rst"):
        if page.stem not in wanted:
            page.unlink()


def setup(app: Sphinx) -> None:
    """Prepare before autosummary writes its pages and any page is read."""
    app.connect("builder-inited", _prepare, priority=400)
