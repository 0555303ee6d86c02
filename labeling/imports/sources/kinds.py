"""What a file is, by its content. Its name is not asked."""

import io
import re

from labeling.imports.sources import tables
from labeling.imports.sources.base import BadSource, Limits, Source
from labeling.imports.sources.columns import ARROW_FILE, ARROW_STREAM, PARQUET
from labeling.imports.sources.documents import JsonDocument, Text, containers
from labeling.imports.sources.lines import BLANK, JsonLines
from labeling.imports.sources.stored import BOM, GZIP, Stored
from labeling.imports.sources.tables import Table
from labeling.web import strict_json

# More than a record may have, so that a first record that is allowed is seen whole.
HEAD_BYTES = 1_250_000
TABLE_HEAD_BYTES = 64 * 1024

_SEND = "send JSON lines, JSON, CSV or Parquet, as it is or packed with gzip"
# (how the file begins, what it is, what to do)
_REFUSED = [
    (b"PK\x03\x04", "a ZIP archive (or a spreadsheet, which is one)", f"unpack it and {_SEND}; save a spreadsheet as CSV"),
    (b"PK\x05\x06", "an empty ZIP archive", _SEND),
    (b"SQLite format 3\0", "an SQLite database", f"export the rows and {_SEND}"),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    (b"FEA1", "a Feather file of version 1", "write Parquet instead"),
    (b"Obj\x01", "an Avro file", "write Parquet instead"),
    (b"BZh91AY", "packed with bzip2", "unpack it, or pack it with gzip"),
    (b"\xfd7zXZ\0", "packed with xz", "unpack it, or pack it with gzip"),
    (b"\x28\xb5\x2f\xfd", "packed with Zstandard", "unpack it, or pack it with gzip"),
    (b"\x04\x22\x4d\x18", "packed with LZ4", "unpack it, or pack it with gzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", f"unpack it and {_SEND}"),
    (b"Rar!", "a RAR archive", f"unpack it and {_SEND}"),
    (b"%PDF", "a PDF document", _SEND),
    (b"\x89PNG", "a PNG image", _SEND),
    (b"\xff\xd8\xff", "a JPEG image", _SEND),
    (b"\x7fELF", "a program", _SEND),
    (b"MZ\x90", "a program", _SEND),
    (b"\x89HDF", "an HDF5 file", "write Parquet instead"),
    (b"\x93NUMPY", "a NumPy array", "write Parquet instead"),
    (b"GGUF", "model weights (GGUF)", _SEND),
    (b"\xd0\xcf\x11\xe0", "an old Office document", "save a spreadsheet as CSV"),
    (b"{\\rtf", "a rich-text document", "save it as plain text"),
]  # fmt: skip
_PICKLE = re.compile(rb"\x80[\x02-\x05]|c[\w.]+\n\w+\np\d+\n|\([dl]p\d+\n")
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype|html|head|body|\?xml|svg)", re.IGNORECASE)
_SAFETENSORS = re.compile(rb"[\s\S]{3}\0{5}\{\s*\"")
_ARRAY_OF_OBJECTS = re.compile(rb"\[\s*\{")
# One column has no delimiter to be known by, only a name that looks like one.
_LONE_COLUMN = re.compile(r'"?[^\W\d][\w.-]{0,63}"?', re.ASCII)

# What an object calls the records it holds.
HOLDERS = {
    "data", "dataset", "rows", "records", "examples", "items", "instances", "results", "samples", "entries", "tasks", "pairs", "comparisons",
    "prompts", "train", "test", "validation",
}  # fmt: skip
# What a record calls the objects it holds itself.
_OF_ONE_RECORD = {
    "messages", "prompt", "chosen", "rejected", "completion", "completions", "conversation", "conversations", "conversation_a",
    "conversation_b", "context", "annotations", "predictions", "replies", "votes", "turns", "history", "responses", "suggestions", "tools",
}  # fmt: skip


def text_source(stored: Stored, limits: Limits) -> Source:
    """The reader for a file that is text. Raises BadSource for what is not, or not text that holds rows."""
    head = stored.head(HEAD_BYTES)
    is_whole = len(head) < HEAD_BYTES
    if stored.compressed and head.startswith(GZIP):
        raise BadSource("The file is gzip inside gzip: unpack it once")
    if stored.compressed and head.startswith((PARQUET, ARROW_FILE, ARROW_STREAM)):
        raise BadSource("The file is Parquet or Arrow inside gzip: unpack it, it is packed in itself")
    refuse_what_is_not_text(head)
    head = head.removeprefix(BOM)
    if not (begin := head.lstrip(BLANK)):
        raise BadSource("The file is empty" if is_whole else "The file begins with nothing but blank lines")
    if begin.startswith(b"["):
        return JsonDocument(stored, limits, holder=None)
    if b"\n" not in head and b"\r" in head.strip(BLANK) and not _is_object(head):
        raise BadSource("The lines end with carriage returns alone, as on old Macs: save it with line feeds")
    if begin.startswith(b"{"):
        if not _is_json_lines(head, is_whole):
            return JsonDocument(stored, limits, holder=_holder(head, is_whole))
        if is_whole and b"\n" not in head.strip(BLANK) and (holder := _holder(head, is_whole)):
            return JsonDocument(stored, limits, holder)
        return JsonLines(stored, limits)
    if _has_object_line(head, is_whole):
        return JsonLines(stored, limits)
    return _table(stored, limits, head, is_whole)


def refuse_what_is_not_text(head: bytes) -> None:
    for begin, what, to_do in _REFUSED:
        if head.startswith(begin):
            raise BadSource(f"The file is {what}: {to_do}")
    if head[257:262] == b"ustar":
        raise BadSource(f"The file is a tar archive: unpack it and {_SEND}")
    if _PICKLE.match(head):
        raise BadSource(f"The file is a Python pickle, which is never read because it can run code: {_SEND}")
    if _SAFETENSORS.match(head):
        raise BadSource(f"The file is model weights (safetensors): {_SEND}")
    if name := _wide_encoding(head):
        raise BadSource(f"The text is {name}, not UTF-8: save it as UTF-8, or run iconv -f {name} -t UTF-8")
    if _WEB_PAGE.match(head):
        raise BadSource(f"The file is a web page or XML, perhaps what a server said instead of the file: {_SEND}")
    # One such character can be in a broken row; a file full of them is no text.
    if sum(head.count(bytes([code])) for code in (*range(9), *range(14, 27))) > len(head) // 30 + 8:
        raise BadSource(f"The file is binary: {_SEND}")
    _refuse_other_encodings(head)


def _wide_encoding(head: bytes) -> str:
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    sample = head[:4096]
    if len(sample) >= 4 and sample[1::2].count(0) > 0.4 * len(sample[1::2]):
        return "UTF-16LE" if sample[::2].count(0) < 0.1 * len(sample[::2]) else ""
    if len(sample) >= 4 and sample[::2].count(0) > 0.4 * len(sample[::2]):
        return "UTF-16BE" if sample[1::2].count(0) < 0.1 * len(sample[1::2]) else ""
    return ""


def _refuse_other_encodings(head: bytes) -> None:
    """A broken character is its row's trouble; where there are several and none that is right, it is the file's."""
    wrong = []
    for number, line in enumerate(io.BytesIO(head), start=1):
        # The last line may be cut inside a character.
        if line.isascii() or (number > 1 and not line.endswith(b"\n")):
            continue
        try:
            line.decode()
            return
        except UnicodeDecodeError as error:
            wrong.append((number, line[error.start], line[error.start + 1 : error.start + 2] < b"\x80"))
    if len(wrong) > 1:
        number, byte, _ = wrong[0]
        # European text has its letters beyond ASCII one by one, other scripts in rows.
        if 2 * sum(alone for _, _, alone in wrong) > len(wrong):
            guess = "Latin-1 or Windows-1252: save it as UTF-8, or run iconv -f WINDOWS-1252 -t UTF-8"
        else:
            guess = "an older encoding of another script: save it as UTF-8"
        raise BadSource(f"The text is not UTF-8: byte {byte:#04x} on line {number:,}. It looks like {guess}")


def _lines_of(head: bytes, is_whole: bool) -> list[bytes]:
    """Lines that are whole and not blank."""
    lines = head.split(b"\n", 200)
    if not is_whole or len(lines) > 200:
        lines.pop()
    return [line for line in lines if line.strip(BLANK)]


def _is_object(line: bytes) -> bool:
    try:
        value = strict_json.parse(line)
    except ValueError:
        return False
    # A pair of brackets alone can be a line of code inside a cell.
    return isinstance(value, dict) and bool(value)


def _has_object_line(head: bytes, is_whole: bool) -> bool:
    """Whether a line is a JSON object by itself, and stands where only a row of JSON lines does."""
    return any(line.startswith(b"{") and _is_object(line) for line in _lines_of(head, is_whole)[:50])


def _is_json_lines(head: bytes, is_whole: bool) -> bool:
    lines = _lines_of(head, is_whole)
    if not lines:  # the first line is longer than the head
        return _holder(head, is_whole) is None
    if len(lines) == 1 and is_whole:
        return True
    if _is_object(lines[0]) or _has_object_line(head, is_whole):
        return True
    return not _spans_lines(head) and _holder(head, is_whole) is None


def _spans_lines(head: bytes) -> bool:
    """Whether the first object goes on after its line, rather than being broken on it."""
    text = Text(iter([head]), len(head))
    try:
        text.next()
        began = text.line
        text.value()
    except BadSource:
        return re.match(rb"\s*\{[ \t\r]*\n|\s*\{\s*\"[^\"\n]*\"\s*:\s*[\[{]?[ \t\r]*\n", head) is not None
    return text.line > began


def _holder(head: bytes, is_whole: bool) -> str | None:
    """The field of the file's one object that holds the records; None if the object is a record itself."""
    text = Text(iter([head]), len(head))
    n_found = 0
    last: str | None = None
    try:
        for name in containers(text):
            n_found += 1
            if _ARRAY_OF_OBJECTS.match(text.data, text.at):
                last = name
                if name in HOLDERS:
                    return name
            text.value()
        n_fields = len(strict_json.parse(head))
    except (BadSource, ValueError):
        # The head ends inside the field: what is longer than a record may be is none.
        return last if n_found == 1 and not is_whole and last not in _OF_ONE_RECORD else None
    return last if n_fields == 1 and last not in _OF_ONE_RECORD else None


def _table(stored: Stored, limits: Limits, head: bytes, is_whole: bool) -> Source:
    text = head[:TABLE_HEAD_BYTES].decode(errors="replace")
    if not is_whole or len(head) > TABLE_HEAD_BYTES:
        text = text.rpartition("\n")[0] or text
    if dialect := tables.recognise(text):
        return Table(stored, limits, dialect)
    header, _, below = text.strip().partition("\n")
    if below and _LONE_COLUMN.fullmatch(header.strip()):
        return Table(stored, limits, tables.Dialect(","))
    raise BadSource(f"The text is neither JSON nor a table with a header: {_SEND}")
