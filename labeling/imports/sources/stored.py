"""The bytes of a file, unpacked where it is gzip, a piece at a time."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from labeling.imports.sources.base import BadSource, Limits

PIECE_BYTES = 256 * 1024
GZIP = b"\x1f\x8b"
BOM = b"\xef\xbb\xbf"
_GZIP_WINDOW = 31  # zlib's word for: a gzip header, and the largest window


class Stored:
    """`n_read` counts the bytes of the file as stored, whatever they unpack to."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.n_bytes = path.stat().st_size
        self.n_read = 0
        with path.open("rb") as file:
            self.compressed = file.read(2) == GZIP

    def head(self, n_bytes: int) -> bytes:
        """The first bytes, unpacked; what there is of them where the file is broken."""
        head = bytearray()
        pieces = self.pieces()
        try:
            for piece in pieces:
                head += piece
                if len(head) >= n_bytes:
                    break
        except BadSource:
            if not head:
                raise
        return bytes(head[:n_bytes])

    def text(self) -> Iterator[bytes]:
        """The pieces without the mark some programs put before UTF-8."""
        pieces = self.pieces()
        first = b""
        while len(first) < len(BOM) and (piece := next(pieces, b"")):
            first += piece
        if first := first.removeprefix(BOM):
            yield first
        yield from pieces

    def pieces(self) -> Iterator[bytes]:
        """Raises BadSource where gzip is broken, ends early, or unpacks to far more than it takes."""
        self.n_read = 0
        return _gathered(self._unpacked()) if self.compressed else self._read()

    def _read(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                self.n_read += len(piece)
                yield piece

    def _unpacked(self) -> Iterator[bytes]:
        member = zlib.decompressobj(_GZIP_WINDOW)
        n_unpacked = 0
        for stored in self._read():
            while stored:
                if member.eof:
                    # gzip files may follow one another, or be padded with zeros.
                    if not (stored := stored.lstrip(b"\0")):
                        break
                    member = zlib.decompressobj(_GZIP_WINDOW)
                try:
                    piece = member.decompress(stored, PIECE_BYTES)
                except zlib.error as error:
                    raise BadSource(f"The gzip data are damaged: {str(error).rpartition(': ')[2]}") from None
                stored = member.unconsumed_tail or member.unused_data
                n_unpacked += len(piece)
                self._check(n_unpacked, self.n_read - len(stored))
                if piece:
                    yield piece
        if not member.eof:
            raise BadSource("The gzip data end early: the file was cut off")

    def _check(self, n_unpacked: int, n_taken: int) -> None:
        if n_unpacked > self.limits.ratio_from and n_unpacked > self.limits.ratio * n_taken:
            raise BadSource(f"The gzip data unpack to more than {self.limits.ratio} times their size")
        if n_unpacked > self.limits.unpacked_bytes:
            raise BadSource(f"The gzip data unpack to more than {self.limits.unpacked_bytes:,} bytes")


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """No small pieces, which a file of many tiny parts has, and which would be copied again with each one more."""
    waiting = bytearray()
    try:
        for piece in pieces:
            waiting += piece
            if len(waiting) >= PIECE_BYTES // 2:
                yield bytes(waiting)
                waiting.clear()
    except BadSource:
        if waiting:
            yield bytes(waiting)
        raise
    if waiting:
        yield bytes(waiting)
