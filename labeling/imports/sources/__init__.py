"""Bytes of any accepted file in, rows out, in constant memory.

What a file is, its content says. Nothing in it is run, no name in it is opened, and archives are not read at all.
"""

from pathlib import Path

from labeling.imports.sources.base import BadSource, Limits, Source
from labeling.imports.sources.columns import columns_source, is_columns
from labeling.imports.sources.folders import folder_source
from labeling.imports.sources.kinds import text_source
from labeling.imports.sources.stored import Stored

__all__ = ["BadSource", "Limits", "Source", "open_source"]


def open_source(path: Path, *, filename: str = "", split: str = "", limits: Limits | None = None) -> Source:
    """The rows of a file; or of a folder, written by `datasets.save_to_disk` or of Parquet files that are one table.

    `filename` is what the person calls it, for the messages. `split` names one of a folder that has several; else all
    are read. Raises BadSource if it cannot be read at all.
    """
    limits = limits or Limits()
    if not path.exists():
        raise BadSource(f"There is no {filename or path.name}")
    if path.is_dir():
        return folder_source(path, split=split, limits=limits)
    if split:
        raise BadSource(f"Only a folder has splits, and {filename or path.name} is a file")
    if is_columns(path):
        return columns_source([path], limits=limits)
    return text_source(Stored(path, limits), limits)
