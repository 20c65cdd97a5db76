"""The documentation's site. `make docs` writes it to docs/_site and needs no network."""

from pygments.lexers.data import JsonLexer
from sphinx.application import Sphinx

from app import TITLE, __version__

project = TITLE
release = __version__
extensions = ["myst_parser"]
exclude_patterns = ["_site"]
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
myst_heading_anchors = 4  # a link to a heading works as it does on the forge
myst_enable_extensions = ["colon_fence"]


def setup(app: Sphinx) -> None:
    """Have the lines of a log coloured as JSON."""
    app.add_lexer("json-lines", JsonLexer)
