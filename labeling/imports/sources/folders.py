"""Folders: what `datasets.save_to_disk` writes, and Parquet files that are one table. Only the command line opens these."""

import json
from pathlib import Path
from typing import Any

from labeling.imports.sources.base import BadSource, Limits, Source
from labeling.imports.sources.columns import columns_source, is_columns

MAX_STATE_BYTES = 16 * 2**20


def folder_source(path: Path, *, split: str, limits: Limits) -> Source:
    if (path / "dataset_dict.json").is_file():
        splits = _names(_state(path / "dataset_dict.json"), "splits")
        if split and split not in splits:
            raise BadSource(f"There is no split {split!r} in the folder, only {', '.join(splits)}")
        folders = [_inside(path, name) for name in splits if not split or name == split]
        return columns_source([file for folder in folders for file in _arrow_files(folder)], limits=limits, kind="datasets")
    if (path / "state.json").is_file():
        if split and (own := _state(path / "state.json").get("_split")) != split:
            raise BadSource(f"The folder holds the split {str(own)[:80]!r} alone")
        return columns_source(_arrow_files(path), limits=limits, kind="datasets")
    files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    if split:
        files = [file for file in files if file.name.startswith((f"{split}-", f"{split}."))]
    files = [file for file in files if file.suffix == ".parquet"]
    if not files:
        raise BadSource(
            f"The folder holds no {split + ' ' if split else ''}Parquet files and was not written by datasets.save_to_disk"
        )
    return columns_source(_all_columns(files), limits=limits)


def _arrow_files(folder: Path) -> list[Path]:
    state = _state(folder / "state.json")
    if state.get("_indices_data_files"):
        raise BadSource("The data set was saved with an index of its rows: call flatten_indices() and save it again")
    files = state.get("_data_files")
    if not isinstance(files, list) or not all(isinstance(file, dict) for file in files) or not files:
        raise BadSource(f"{folder.name}/state.json names no files")
    return _all_columns([_inside(folder, name) for name in _names({"files": [f.get("filename") for f in files]}, "files")])


def _all_columns(files: list[Path]) -> list[Path]:
    for file in files:
        if not file.is_file() or not is_columns(file):
            raise BadSource(f"{file.name} is not there, or is neither a Parquet nor an Arrow file")
    return files


def _state(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            state = json.loads(file.read(MAX_STATE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise BadSource(f"{path.name} cannot be read: {str(error)[:200]}") from None
    if not isinstance(state, dict):
        raise BadSource(f"{path.name} must be a JSON object")
    return state


def _names(state: dict[str, Any], key: str) -> list[str]:
    names = state.get(key)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or not names:
        raise BadSource(f"The folder's list of {key} is missing or broken")
    return names


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder itself: a name that leads elsewhere, or a link, is refused."""
    path = folder / name
    if name in ("", ".", "..") or Path(name).name != name or path.is_symlink():
        raise BadSource(f"The folder names {name[:80]!r}, which is not a file inside it")
    return path
