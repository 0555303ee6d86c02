"""Unpacks one Parquet or Arrow file, as a process of its own: `python unpack.py '{"path": ...}'`.

A file can announce or unpack to far more than it takes, and a damaged one can bring the library down. So whoever wants
the rows starts this with its memory limited, and reads small checked batches of an Arrow stream from its output:

- metadata `row` is the number of a batch's first row, from 0; `read` how many bytes of the file are behind it;
- an empty batch with `problem` stands for one row that cannot be read;
- an empty batch with `rows` is the last, and says how many rows there are.

A fault that ends reading is one line on standard error and status 3. Imports nothing of Prefloop, so that it starts fast.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FAULT = 3
BATCH_ROWS = 256
BATCH_BYTES = 8 * 2**20
READ_BYTES = 64 * 1024
MAX_FOOTER_BYTES = 64 * 2**20
MAX_FOOTER_ITEMS = 1_000_000
MAX_NESTING = 60
# What a row costs even if it holds nothing.
ROW_BYTES = 64
SECONDS = 120
SECONDS_A_MEGABYTE = 2


class Fault(Exception):
    """Reading cannot go on."""


def main(arguments: dict[str, Any]) -> int:
    # Before the import: threads of its mathematics would count against the limit on a machine with many processors.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", ARROW_DEFAULT_MEMORY_POOL="system")
    import pyarrow as pa
    import pyarrow.parquet

    pa.set_cpu_count(1)
    pa.set_io_thread_count(1)
    limit_memory(arguments["memory_bytes"])
    limit_time(SECONDS + SECONDS_A_MEGABYTE * os.path.getsize(arguments["path"]) // 10**6)
    try:
        File(**arguments).write_to(os.fdopen(1, "wb"))
    except Fault as fault:
        print(fault, file=sys.stderr)
        return FAULT
    except MemoryError:
        print("It unpacks to more memory than an import may take", file=sys.stderr)
        return FAULT
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, IndexError, TypeError) as error:
        print("It is damaged:", " ".join(str(error).split())[:200], file=sys.stderr)
        return FAULT
    return 0


def limit_memory(n_bytes: int) -> None:
    """Lets the process take so much more than it has now. Linux only: elsewhere the checks of sizes must do."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    import resource

    now = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmData"))
    resource.setrlimit(resource.RLIMIT_DATA, (now + n_bytes, now + n_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(seconds: int) -> None:
    """Of the processor's time: what a damaged file sends round in circles ends too."""
    with contextlib.suppress(ImportError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


class File:
    def __init__(
        self, *, path: str, skip: int, record_bytes: int, fields: int, rows: int, column_ratio: int, ratio_from: int,
        unpacked_bytes: int, memory_bytes: int,
    ) -> None:  # fmt: skip
        self.path = path
        self.n_bytes = os.path.getsize(path)
        self.skip = skip
        self.record_bytes = record_bytes
        self.fields = fields
        self.max_rows = rows
        self.max_unpacked = min(unpacked_bytes, ratio_from + column_ratio * self.n_bytes)
        self.n_unpacked = 0
        self.n_rows = 0

    def write_to(self, stream: Any) -> None:
        import pyarrow as pa

        with open(self.path, "rb") as file:
            is_parquet = file.read(4) == b"PAR1"
        schema, batches = self._parquet() if is_parquet else self._arrow()
        self._check(schema)
        schema = pa.schema([pa.field(field.name, plain_type(field.type)) for field in schema])
        with pa.ipc.new_stream(stream, schema) as writer:
            stream.flush()
            for batch, n_read in batches:
                first = self.n_rows
                self.n_rows += batch.num_rows
                if self.n_rows > self.max_rows:
                    raise Fault(f"It holds more than {self.max_rows:,} rows: send them in several files")
                if past := min(self.skip, batch.num_rows):
                    self.skip -= past
                    first += past
                    batch = batch.slice(past)
                for row, piece, problem in self._pieces(first, batch):
                    about = {"row": str(row), "read": str(n_read)}
                    if problem:
                        writer.write_batch(empty(schema), {**about, "problem": problem})
                    else:
                        self._count(piece)
                        writer.write_batch(as_plain(piece, schema), about)
            writer.write_batch(empty(schema), {"rows": str(self.n_rows)})

    def _parquet(self) -> tuple[Any, Iterator[tuple[Any, int]]]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with open(self.path, "rb") as stream:
            stream.seek(max(0, self.n_bytes - 8))
            end = stream.read()
        if end[4:] == b"PARE":
            raise Fault("It is encrypted")
        if end[4:] != b"PAR1":
            raise Fault("It is damaged: it was cut off, or is no Parquet file to its end")
        n_footer = int.from_bytes(end[:4], "little")
        if n_footer > min(MAX_FOOTER_BYTES, self.n_bytes - 12):
            raise Fault(f"It is damaged: its footer says that it takes {n_footer:,} bytes")
        file = pq.ParquetFile(
            pa.OSFile(self.path), buffer_size=READ_BYTES, pre_buffer=False,
            thrift_string_size_limit=MAX_FOOTER_BYTES, thrift_container_size_limit=MAX_FOOTER_ITEMS,
        )  # fmt: skip
        n_rows = file.metadata.num_rows
        if n_rows > self.max_rows:
            raise Fault(f"It says that it holds {n_rows:,} rows, and at most {self.max_rows:,} are taken")
        if n_rows * ROW_BYTES > self.max_unpacked:
            raise Fault(f"It says that it holds {n_rows:,} rows in {self.n_bytes:,} bytes")
        return file.schema_arrow, self._row_groups(file)

    def _row_groups(self, file: Any) -> Iterator[tuple[Any, int]]:
        n_read = 0
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            if group.num_rows < 0 or group.total_byte_size < 0:
                raise Fault(f"It is damaged: row group {number + 1} has a size below zero")
            if group.total_byte_size > self.max_unpacked:
                raise Fault(f"Row group {number + 1} says that it unpacks to {group.total_byte_size:,} bytes")
            stored = sum(max(0, group.column(index).total_compressed_size) for index in range(group.num_columns))
            if self.skip >= group.num_rows:
                self.skip -= group.num_rows
                self.n_rows += group.num_rows
            else:
                per_row = group.total_byte_size // group.num_rows
                n_found = 0
                for batch in file.iter_batches(
                    batch_size=max(1, min(BATCH_ROWS, BATCH_BYTES // (per_row + 1))), row_groups=[number], use_threads=False
                ):
                    n_found += batch.num_rows
                    yield batch, min(self.n_bytes, n_read + stored * n_found // group.num_rows)
                if n_found != group.num_rows:
                    raise Fault(f"Row group {number + 1} says that it holds {group.num_rows:,} rows, and holds {n_found:,}")
            n_read += stored

    def _arrow(self) -> tuple[Any, Iterator[tuple[Any, int]]]:
        import pyarrow as pa

        stream = pa.memory_map(self.path)
        if stream.read(6) == b"ARROW1":
            file = pa.ipc.open_file(stream)
            n_batches = file.num_record_batches
            read = (file.get_batch(index) for index in range(n_batches))
            return file.schema, ((b, self.n_bytes * i // n_batches) for i, b in enumerate(read, start=1))
        stream.seek(0)
        batches = pa.ipc.open_stream(stream)
        return batches.schema, ((batch, stream.tell()) for batch in batches)

    def _check(self, schema: Any) -> None:
        if len(schema) > self.fields:
            raise Fault(f"It has {len(schema):,} columns, and at most {self.fields:,} are taken")
        check_names("", schema.names)
        for field in schema:
            check_type(field.name, field.type, 1)

    def _pieces(self, first: int, batch: Any) -> Iterator[tuple[int, Any, str]]:
        """(row, batch, "") for what can be sent, (row, batch, problem) for a row that cannot."""
        import pyarrow as pa

        waiting = [(first, batch)]
        while waiting:
            row, piece = waiting.pop()
            if not piece.num_rows:
                continue
            try:
                piece.validate(full=True)
                problem = "" if piece.nbytes <= self.record_bytes else f"the row is longer than {self.record_bytes:,} bytes"
            except pa.ArrowInvalid as error:
                problem = "holds text that is not UTF-8" if "UTF8" in str(error) else f"is damaged: {str(error)[:200]}"
            if problem and piece.num_rows > 1:
                half = piece.num_rows // 2
                waiting += [(row + half, piece.slice(half)), (row, piece.slice(0, half))]
            else:
                yield row, piece, problem

    def _count(self, piece: Any) -> None:
        self.n_unpacked += max(piece.nbytes, ROW_BYTES * piece.num_rows)
        if self.n_unpacked > self.max_unpacked:
            raise Fault(f"Its {self.n_bytes:,} bytes unpack to more than {self.max_unpacked:,}")


def check_names(where: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise Fault(f"It has two columns {(where + name)[:80]!r}")
        seen.add(name)


def check_type(name: str, kind: Any, depth: int) -> None:
    if depth > MAX_NESTING:
        raise Fault(f"The column {name[:80]!r} is nested too deeply")
    inner = [kind.field(index) for index in range(kind.num_fields)]
    check_names(f"{name}.", [field.name for field in inner])
    for field in inner:
        check_type(f"{name}.{field.name}", field.type, depth + 1)


def plain_type(kind: Any) -> Any:
    """Without what the reader would have to undo."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)  # Python's own times are no finer
    return kind


def as_plain(batch: Any, schema: Any) -> Any:
    import pyarrow as pa

    columns = []
    for column, field in zip(batch.columns, schema, strict=True):
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        columns.append(column if column.type == field.type else column.cast(field.type, safe=False))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def empty(schema: Any) -> Any:
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
