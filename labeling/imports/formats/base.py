"""What a format is: how rows of one shape become records. Pure."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labeling.imports.formats.checks import RowRejected
from labeling.imports.records import Record, Rejected, SourceRow

Options = Mapping[str, str]
Part = Record | Rejected

MAX_REASON = 500
# Rows that lie together and are read as one: enough for the largest conversation tree, and little enough to hold.
MAX_GROUPED = 20_000
MAX_GROUPED_CHARACTERS = 8_000_000


@dataclass(frozen=True)
class Column:
    name: str
    help: str = ""
    required: bool = False


@dataclass(frozen=True)
class Option:
    """How to read a file where it does not say so itself. `choices` empty: any text."""

    name: str
    help: str
    default: str = ""
    choices: tuple[str, ...] = ()
    long: bool = False  # several lines, such as a configuration


class BadOptions(Exception):
    """Options that the format does not know. `fields` says of each what is wrong."""

    def __init__(self, fields: dict[str, str]) -> None:
        self.fields = fields
        super().__init__("; ".join(f"{name}: {problem}" for name, problem in fields.items()))


@dataclass(slots=True)
class Counted:
    """How far a reading has come: everything that the first `rows` rows give has been handed out.

    To go on later, skip so many rows. Rows that are read together are counted together.
    """

    rows: int = 0


EMPTY = Option(
    "empty", "What stands for a completion without text, such as (no answer). Left out: such rows are rejected."
)
EXTRA = Option(
    "extra", "Fields that the format does not know: refuse the row, or ignore them.", "refuse", ("refuse", "ignore")
)


@dataclass(frozen=True)
class Format:
    """`read` makes records of one row, or of the rows that lie together where `together` gives them the same key.
    None as the key: a row by itself.

    `read(rows, options)` is given (line, object) pairs; it yields records and, of rows that hold several things,
    Rejected for a part; RowRejected refuses them whole. `prepare` turns options into what `read` is given in their
    place, once, and raises BadOptions. `mappable`: whether columns of another name can stand for those of the format.
    """

    name: str
    title: str
    describe: str
    example: dict[str, Any] | list[dict[str, Any]]
    read: Callable[[list[tuple[int, dict[str, Any]]], Any], Iterable[Part]]
    columns: tuple[Column, ...] = ()
    options: tuple[Option, ...] = ()
    mappable: bool = False
    together: Callable[[dict[str, Any]], Any] | None = None
    prepare: Callable[[dict[str, str]], Any] | None = None

    def complete(self, options: Options | None) -> dict[str, str]:
        """Options with the defaults of those not given. Raises BadOptions."""
        known = {option.name: option for option in self.options}
        wrong = {}
        for name, value in (options or {}).items():
            if name not in known:
                wrong[str(name)] = f"is not an option of {self.name}; known: {', '.join(known) or 'none'}"
            elif not isinstance(value, str):
                wrong[name] = "must be a text"
            elif known[name].choices and value not in known[name].choices:
                wrong[name] = f"must be one of {', '.join(known[name].choices)}"
            elif "\x00" in value:
                wrong[name] = "holds a NUL character"
        if wrong:
            raise BadOptions(wrong)
        return {name: option.default for name, option in known.items()} | dict(options or {})

    def records(
        self, rows: Iterable[SourceRow], options: Options | None = None, counted: Counted | None = None
    ) -> Iterator[Part]:
        """Records of the rows, and Rejected for each that gives none. Streams. Raises BadOptions at once."""
        chosen: Any = self.complete(options)
        if self.prepare:
            chosen = self.prepare(chosen)
        return self._stream(rows, chosen, counted if counted is not None else Counted())

    def _stream(self, rows: Iterable[SourceRow], options: Any, counted: Counted) -> Iterator[Part]:
        for group, problems in self._groups(rows):
            parts = [*problems]
            if group:
                parts += self._parts(group, options)
            done = counted.rows + len(group) + len(problems)
            yield from parts[:-1]
            # Before the last part goes out: who takes it has taken all of these rows.
            counted.rows = done
            yield from parts[-1:]

    def _groups(self, rows: Iterable[SourceRow]) -> Iterator[tuple[list[tuple[int, dict[str, Any]]], list[Part]]]:
        """Rows that are read as one, or the one that could not be read."""
        waiting: list[tuple[int, dict[str, Any]]] = []
        key: Any = None
        characters = 0
        for row in rows:
            if row.data is None:
                if waiting:
                    yield waiting, []
                    waiting, characters = [], 0
                yield [], [_rejected(row.line, row.problem or "cannot be read")]
                continue
            own = self.together(row.data) if self.together else None
            is_full = len(waiting) >= MAX_GROUPED or characters >= MAX_GROUPED_CHARACTERS
            if waiting and (own is None or own != key or is_full):
                yield waiting, []
                waiting, characters = [], 0
            waiting.append((row.line, row.data))
            key = own
            if own is not None:
                characters += sum(len(value) for value in row.data.values() if isinstance(value, str))
        if waiting:
            yield waiting, []

    def _parts(self, group: list[tuple[int, dict[str, Any]]], options: Any) -> list[Part]:
        parts: list[Part] = []
        try:
            parts.extend(self.read(group, options))
        except RowRejected as error:
            # Never half a record: rows that belong together stand or fall together.
            return [_rejected(line, str(error)) for line, _ in group]
        return [_rejected(part.line, part.reason) if isinstance(part, Rejected) else part for part in parts]


def _rejected(line: int, reason: str) -> Rejected:
    """With a reason that a page can show and a database can keep."""
    plain = reason.replace("\x00", "�").encode("utf-8", "replace").decode("utf-8")
    return Rejected(line, plain if len(plain) <= MAX_REASON else plain[: MAX_REASON - 1] + "…")


def by_row(read: Callable[[int, dict[str, Any], Any], Record]) -> Callable[..., Iterator[Record]]:
    """For formats of one record a row: `read` takes the line, the object and the options."""

    def of_rows(rows: list[tuple[int, dict[str, Any]]], options: Any) -> Iterator[Record]:
        for line, data in rows:
            yield read(line, data, options)

    return of_rows


