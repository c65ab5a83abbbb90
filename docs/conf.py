"""Sphinx builds the documentation from here: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

import gmsa

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "gmsa"
author = "The gmsa authors"
copyright = author
version = release = gmsa.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["_build", "examples/*.py"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_custom_sections = ["Shapes"]

html_theme = "furo"
html_title = f"gmsa {release}"
html_show_sphinx = False
html_copy_source = False
