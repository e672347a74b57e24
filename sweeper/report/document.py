"""A page that needs nothing but itself, and no network: `document.html`, which other templates fill.

What it shows beyond its text is one JSON object, and plotly.js is the only library; both are embedded
compressed, and the browser unpacks them.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any


def document(
    template: str, data: Mapping[str, Any], filters: Mapping[str, Callable[..., Any]], **values: Any
) -> str:
    """The page. The template escapes what comes from a run. data: what page.js reads.  filters, values: what
    the template has."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(__file__).parent
    environment = Environment(
        autoescape=True,
        loader=FileSystemLoader(folder),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= filters
    return environment.get_template(template).render(
        **values,
        style=(folder / "page.css").read_text(encoding="utf-8"),
        scripts=[(folder / name).read_text(encoding="utf-8") for name in ("page.js", "details.js")],
        data=packed(json.dumps(data, separators=(",", ":"), allow_nan=False).encode()),
        plotly=plotly() if data["figures"] else packed(b""),
    )


@lru_cache(1)
def plotly() -> str:
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs().encode())


def packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6, mtime=0)).decode("ascii")
