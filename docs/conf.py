"""How Sphinx makes a book of these pages: `make docs`. What is more than settings is in tools/book.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

import leafdb

project = "leafdb"
author = copyright = "the leafdb authors"
version = release = leafdb.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "book"]
root_doc = "README"
source_suffix = {".md": "markdown"}
highlight_language = "text"

myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_use_unqualified_type_names = True
maximum_signature_line_length = 100

html_theme = "furo"
html_title = f"leafdb {release}"
html_copy_source = False
html_show_sourcelink = False
