"""How Sphinx builds these pages: `make docs`. What is generated from the code is written by `_ext/reference_pages.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from fedpkg import __version__

project = "fedpkg"
author = "the fedpkg authors"
copyright = "the fedpkg authors, Apache-2.0"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "reference_pages",
]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # names such as Request are those of several modules
smartquotes = False  # they make dashes of the options of commands

# A docstring writes `x` for code; fedpkg.cli and the like are imported, so a build needs fedpkg with its extra docs.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_use_rtype = False
copybutton_prompt_text = "$ "

html_theme = "furo"
html_title = f"fedpkg {version}"
html_static_path = ["_static"]
html_css_files = ["fedpkg.css"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "source_repository": "",
    "navigation_with_keys": True,
}
pygments_style = "friendly"
pygments_dark_style = "monokai"
