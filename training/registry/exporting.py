"""Writing a model out as a folder that the Hugging Face hub takes: card, weights, tokenizer, hashes."""

import json
import shutil
import tempfile
from pathlib import Path

from training.registry.card import FILE, card_of
from training.registry.errors import NotExported
from training.registry.models import ModelVersion
from training.registry.services import folder_of
from training.sampling.model_files import sha256_of_file

SUMS = "SHA256SUMS"
ADAPTER_CONFIG = "adapter_config.json"


def export_model(model: ModelVersion, out: Path) -> dict[str, str]:
    """Copy a model's files to the new folder `out` with a fresh card, and list the SHA-256 of each in SHA256SUMS.

    Each file must still be what was entered. An adapter names its base by where that came from, no longer by a path of
    this machine. Returns the hashes by file. Raises NotExported; then there is no such folder.
    """
    if out.exists():
        raise NotExported(f"{out} is there already: name a new folder")
    if not out.parent.is_dir():
        raise NotExported(f"There is no folder {out.parent} to write it to")
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        copy = Path(scratch) / "model"
        copy.mkdir()
        for name, known in sorted(model.files.items()):
            source, target = folder_of(model) / name, copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, target, follow_symlinks=False)
                same = not target.is_symlink() and sha256_of_file(target) == known
            except OSError as error:
                raise NotExported(f"{name} can't be read ({error.strerror}): run manage.py verify_models {model.key}") from None
            if not same:
                raise NotExported(f"{name} is not as it was entered: run manage.py verify_models {model.key}")
        if (config := copy / ADAPTER_CONFIG).exists() and model.base:
            named = json.loads(config.read_text())
            named["base_model_name_or_path"] = model.base.source or model.base.key
            config.write_text(json.dumps(named, indent=2, ensure_ascii=False) + "\n")
        (copy / FILE).write_text(card_of(model), encoding="utf-8")
        hashes = {path.relative_to(copy).as_posix(): sha256_of_file(path) for path in sorted(copy.rglob("*")) if path.is_file()}
        (copy / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in hashes.items()))
        copy.rename(out)
    return hashes
