"""The formats that Prefloop reads: what each row of a file becomes. Pure: no Django, no database.

A family of formats is a module here; each has a `Format` in its FORMATS.
"""

from labeling.imports.formats import (
    arena,
    argilla,
    comparison,
    helpsteer,
    label_studio,
    oasst,
    own,
    potato,
    research,
    transcripts,
    trl,
    ultrafeedback,
)
from labeling.imports.formats.base import BadOptions, Column, Counted, Format, Option
from labeling.imports.formats.checks import RowRejected

FAMILIES = (
    own, trl, comparison, transcripts, helpsteer, ultrafeedback, arena, oasst, argilla, label_studio, potato, research,
)  # fmt: skip
FORMATS: dict[str, Format] = {format.name: format for family in FAMILIES for format in family.FORMATS}

__all__ = ["FORMATS", "BadOptions", "Column", "Counted", "Format", "Option", "RowRejected"]
