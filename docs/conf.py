"""Settings of Sphinx: how the documentation is built."""

import re
from pathlib import Path

_SOURCE = Path(__file__).parents[1] / "src" / "shoal" / "__init__.py"
_VERSION = re.search(r'^__version__ = "(.+)"$', _SOURCE.read_text(encoding="utf-8"), re.MULTILINE)

project = "Shoal"
author = "The Shoal developers"
copyright = "The Shoal developers"
release = _VERSION.group(1) if _VERSION else "unknown"
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"Shoal {release}"

# Formulas as in a notebook: $...$ and $$...$$; headings can be linked to, three levels deep.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
# Types stand in the signature once; Google style docstrings do not repeat them. Short names, since
# `Float[Array, "chains dim"]` is readable and its expansion is not.
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
