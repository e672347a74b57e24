"""Sphinx's configuration: `make docs` builds these pages to docs/_build, without a network."""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

project = "clip-sweeper"
author = "the clip-sweeper authors"
copyright = "the clip-sweeper authors"
release = version = installed("clip-sweeper")

extensions = ["myst_nb"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
smartquotes = False  # so that messages are found as they are said
nb_execution_mode = "off"  # the notebook is stored executed, and tests execute it
suppress_warnings = ["mystnb.unknown_mime_type"]  # plotly's figures are shown by the picture beside them

html_theme = "furo"
html_title = "clip-sweeper"
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_math_renderer = "mathml"


def mathml(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """Formulas as MathML, which browsers draw by themselves: no script from elsewhere."""
    block = isinstance(node, nodes.math_block)
    formula = tex2mathml(node.astext().replace("'", r"^{\prime}"), as_block=block)
    translator.body.append(f'<div class="math">{formula}</div>' if block else formula)
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    app.add_html_math_renderer("mathml", (mathml, None), (mathml, None))
