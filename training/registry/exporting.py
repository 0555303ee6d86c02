"""Writing a model out as a repository of the Hugging Face hub: card, weights, tokenizer, licence, hashes.

As a folder, or as a tar that is sent while it is read. Each file must still be what was entered.
"""

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training.registry.card import FILE, card_of
from training.registry.errors import NotExported
from training.registry.models import ModelVersion
from training.registry.services import folder_of

SUMS = "SHA256SUMS"
ATTRIBUTES = ".gitattributes"
ADAPTER_CONFIG = "adapter_config.json"
LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE")
LARGE = ("*.safetensors", "*.gguf", "tokenizer.json")  # what git keeps by its hash alone
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Part:
    """One file: `path` where it lies on this machine, or else its `content`. `name` has slashes."""

    name: str
    sha256: str
    n_bytes: int
    path: Path | None = None
    content: bytes = b""

    def read(self) -> Iterator[bytes]:
        """Raises NotExported at the end where it is not what was entered."""
        if self.path is None:
            yield self.content
            return
        digest, left = hashlib.sha256(), self.n_bytes
        try:
            with open(self.path, "rb") as file:
                while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                    digest.update(chunk)
                    left -= len(chunk)
                    yield chunk
        except OSError as error:
            raise NotExported(f"{self.name} can't be read ({error.strerror})") from None
        if left or digest.hexdigest() != self.sha256:
            raise NotExported(f"{self.name} is not as it was entered")


def parts_of(model: ModelVersion) -> list[Part]:
    """All files of the repository by name, SHA256SUMS last. Raises NotExported where one can't be read."""
    made = {FILE: card_of(model).encode(), ATTRIBUTES: _attributes()}
    if ADAPTER_CONFIG in model.files and model.base:  # it names its base by where that came from, not by a path of this machine
        (written,) = _stored(model, [ADAPTER_CONFIG])
        named = json.loads(b"".join(written.read()))
        named["base_model_name_or_path"] = model.base.source or model.base.key
        made[ADAPTER_CONFIG] = (json.dumps(named, indent=2, ensure_ascii=False) + "\n").encode()
    parts = [Part(name, hashlib.sha256(text).hexdigest(), len(text), content=text) for name, text in made.items()]
    parts += _stored(model, [name for name in model.files if name not in made])
    for source in (model.base, model.parent, model.root):  # a licence goes with what is made under it
        if source is not None and not any(part.name in LICENCES for part in parts):
            parts += _stored(source, [name for name in LICENCES if name in source.files])
    parts.sort(key=lambda part: part.name)
    sums = "".join(f"{part.sha256}  {part.name}\n" for part in parts).encode()
    return [*parts, Part(SUMS, hashlib.sha256(sums).hexdigest(), len(sums), content=sums)]


def file_of(model: ModelVersion, name: str) -> Path:
    """Where one of the model's files lies. Raises NotExported where it doesn't."""
    (part,) = _stored(model, [name])
    return part.path  # type: ignore[return-value]


def _stored(model: ModelVersion, names: list[str]) -> list[Part]:
    found = []
    for name in names:
        path = folder_of(model) / name
        try:
            if path.is_symlink() or not path.is_file():
                raise FileNotFoundError
            found.append(Part(name, model.files[name], path.stat().st_size, path))
        except OSError:
            raise NotExported(f"{name} is missing: run manage.py verify_models {model.key}") from None
    return found


def _attributes() -> bytes:
    return "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LARGE).encode()


def export_model(model: ModelVersion, out: Path) -> dict[str, str]:
    """Write the repository to the new folder `out`. Returns the hashes by file.

    Raises NotExported; then there is no such folder.
    """
    if out.exists():
        raise NotExported(f"{out} is there already: name a new folder")
    if not out.parent.is_dir():
        raise NotExported(f"There is no folder {out.parent} to write it to")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        copy = Path(scratch) / "model"
        copy.mkdir()
        parts = parts_of(model)
        for part in parts:
            target = copy / part.name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with open(target, "wb") as file:
                    for chunk in part.read():
                        file.write(chunk)
            except NotExported as error:
                raise NotExported(f"{error}: run manage.py verify_models {model.key}") from None
        copy.rename(out)
    return {part.name: part.sha256 for part in parts if part.name != SUMS}


def tar_of(model: ModelVersion) -> tuple[int, Iterator[bytes]]:
    """The repository as a tar, in one folder named like the model: its bytes, and how many they will be.

    Raises NotExported at once for what is missing. What turns out not to be as it was entered breaks the stream off, so
    that nobody takes it for whole.
    """
    parts = parts_of(model)
    heads = [_head(model, part) for part in parts]
    n_bytes = sum(len(head) + _padded(part.n_bytes) for head, part in zip(heads, parts, strict=True))
    total = _rounded(n_bytes + 2 * tarfile.BLOCKSIZE, tarfile.RECORDSIZE)

    def stream() -> Iterator[bytes]:
        for head, part in zip(heads, parts, strict=True):
            yield head
            yield from part.read()
            yield bytes(_padded(part.n_bytes) - part.n_bytes)
        yield bytes(total - n_bytes)

    return total, stream()


def archive_name(model: ModelVersion) -> str:
    return f"{model.name}-{model.version}"


def _head(model: ModelVersion, part: Part) -> bytes:
    info = tarfile.TarInfo(f"{archive_name(model)}/{part.name}")
    info.size, info.mtime, info.mode = part.n_bytes, int(model.created_at.timestamp()), 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def _padded(n_bytes: int) -> int:
    return _rounded(n_bytes, tarfile.BLOCKSIZE)


def _rounded(n_bytes: int, to: int) -> int:
    return -(-n_bytes // to) * to
