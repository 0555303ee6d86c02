"""The command line of a recipe that trains without a trainer: parsed without importing transformers, which takes a second."""

import argparse
import dataclasses
import types
import typing
from pathlib import Path
from typing import Any

import yaml


def parse_plain(dataclass_types: tuple[type, ...], arguments: list[str]) -> tuple[Any, ...]:
    """As TRL's parser: options as `--name value`, which go before those of the YAML file that `--config` names.

    Fields are of the types int, float, str, bool and Path, lists of these, or `... | None`. Raises ValueError naming an
    option of the file that there is none of, or a value that is not of the field's type.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path)
    fields = [field for one in dataclass_types for field in dataclasses.fields(one)]
    hints = {name: hint for one in dataclass_types for name, hint in typing.get_type_hints(one).items()}
    for field in fields:
        kind, is_list = _kind(hints[field.name])
        parser.add_argument(
            f"--{field.name}", type=_flag if kind is bool else kind, nargs="+" if is_list else None, help=field.metadata.get("help")
        )
    given = vars(parser.parse_args(arguments))
    path = given.pop("config")
    values = _read(path) if path else {}
    if unknown := sorted(set(values) - set(hints)):
        raise ValueError(f"{path}: there is no option {', '.join(unknown)}; known: {', '.join(hints)}")
    values = {name: _converted(name, value, hints[name]) for name, value in values.items()}
    values |= {name: value for name, value in given.items() if value is not None}
    made = []
    for one in dataclass_types:
        names = [field.name for field in dataclasses.fields(one)]
        try:
            made.append(one(**{name: values[name] for name in names if name in values}))
        except TypeError as error:
            raise ValueError(f"An option is missing: {error}") from None
    return tuple(made)


def _read(path: Path) -> dict[str, Any]:
    values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold options, one a line: name: value")
    return values


def _kind(hint: Any) -> tuple[type, bool]:
    """The type of one value, and whether the field is a list of them."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is list:
        return typing.get_args(hint)[0], True
    return hint, False


def _converted(name: str, value: Any, hint: Any) -> Any:
    kind, is_list = _kind(hint)
    if value is None and isinstance(hint, types.UnionType):
        return None
    try:
        if is_list:
            return [_one(item, kind) for item in value]
        return _one(value, kind)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is {value!r}, it must be {'a list of ' if is_list else ''}{kind.__name__}") from None


def _one(value: Any, kind: type) -> Any:
    if kind is bool or isinstance(value, bool):
        if not (kind is bool and isinstance(value, bool)):
            raise ValueError
        return value
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError
    if kind in (str, Path) and not isinstance(value, str | Path):
        raise ValueError
    return kind(value)


def _flag(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
