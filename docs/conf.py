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
    "gmsa_docs",
]
exclude_patterns = ["_build", "examples/*.py"]
toc_object_entries_show_parents = "hide"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
copybutton_prompt_text = "$ "

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {name: name for name in ("ArrayLike", "Input", "Convs", "Overrides", "Settings", "Folder")}
autodoc_preserve_defaults = True  # `os.environ`, not what is in it
python_maximum_signature_line_length = 88
napoleon_custom_sections = ["Shapes"]

html_theme = "furo"
html_title = f"gmsa {release}"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["gmsa.css"]
