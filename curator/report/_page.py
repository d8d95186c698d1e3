"""A report as one HTML page that needs nothing else: no script, no other file."""

from __future__ import annotations

import base64
import re
import struct
from importlib import resources
from typing import cast

import curator
from curator.errors import MissingDependencyError
from curator.report._content import Report

__all__ = ["to_html"]

_SMALL = 104  # pixels of height: what is enlarged on the page keeps its pixels
# What HTML or UTF-8 cannot have, of names of files and columns.
_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def to_html(report: Report) -> str:
    """Returns the page. All that a report holds is text, and none of it markup.

    Raises:
        MissingDependencyError: Jinja is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        msg = (
            "a report needs Jinja, which is not installed: "
            "pip install 'batch-curator[report]'"
        )
        raise MissingDependencyError(msg) from error
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = cast("dict[str, object]", environment.filters)
    filters |= {"data_uri": _data_uri, "is_small": _is_small}
    source = resources.files("curator.report").joinpath("page.html")
    template = environment.from_string(source.read_text(encoding="utf-8"))
    page = template.render(
        title=report.title,
        subtitle=report.subtitle,
        sections=report.sections,
        footer=f"Made by batch-curator {curator.__version__}: curator report.",
    )
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", page)


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _is_small(png: bytes) -> bool:
    (height,) = struct.unpack(">I", png[20:24])
    return height < _SMALL
