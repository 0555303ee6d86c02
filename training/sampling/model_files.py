"""Checks on a model folder before anything loads it, with errors that say what to do.

Only safetensors weights are accepted: `.bin`, `.pt` and `.pth` files are pickles, which can run code
when they are read. `trust_remote_code` is never passed anywhere in `training`.
"""

import hashlib
import json
import os
from pathlib import Path

PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


class ModelFilesError(Exception):
    """A model folder is missing, incomplete, or holds weights we refuse to read."""


def check_model(name_or_path: str | Path) -> str:
    """Return `name_or_path` for `from_pretrained`, once it is known to be safe to load.

    A local folder must hold `config.json` and safetensors weights. A name such as `org/model`, which is no
    local path, is let through when the Hugging Face hub may be asked (`HF_HUB_OFFLINE=0`).

    Raises ModelFilesError, naming the path and the remedy.
    """
    path = Path(name_or_path)
    if path.is_dir():
        return _check_folder(path, "config.json")
    offline = os.environ.get("HF_HUB_OFFLINE", "1").lower() not in ("0", "false", "no", "off")
    looks_like_path = path.is_absolute() or str(name_or_path).startswith((".", "~")) or path.exists()
    if looks_like_path or offline:
        raise ModelFilesError(
            f"No model folder at {name_or_path}. Build the demo model with "
            f"`python -m training.sampling.demo_model --out {name_or_path}`, point the setting to an existing "
            "folder, or, for a name on the Hugging Face hub, allow the download with HF_HUB_OFFLINE=0."
        )
    return str(name_or_path)


def check_adapter(path: str | Path) -> str:
    """As `check_model`, for a folder that holds a PEFT adapter."""
    path = Path(path)
    if not path.is_dir():
        raise ModelFilesError(f"No adapter folder at {path}. It is the `model/` folder of a finished run.")
    return _check_folder(path, "adapter_config.json")


def _check_folder(path: Path, config_name: str) -> str:
    if not (path / config_name).is_file():
        raise ModelFilesError(f"{path} holds no {config_name}: it is not a complete model folder.")
    if any(path.glob("*.safetensors")):
        return str(path)
    pickled = sorted(file.name for file in path.iterdir() if file.suffix in PICKLED_SUFFIXES)
    if pickled:
        raise ModelFilesError(
            f"{path} holds only pickled weights ({', '.join(pickled)}), which can run code when read. "
            "Convert them to safetensors first."
        )
    raise ModelFilesError(f"{path} holds no *.safetensors file: its weights are missing or were half copied.")


def sha256_of_file(path: Path) -> str:
    """Hexadecimal SHA-256 of one file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_model(path: str | Path) -> str:
    """Identity of a local model: SHA-256 over its configuration, tokenizer and weights.

    File times and places do not matter, so a copied folder has the same hash. For a hub name, which
    has no folder, the name itself is hashed.
    """
    path = Path(path)
    digest = hashlib.sha256()
    if not path.is_dir():
        digest.update(str(path).encode())
        return digest.hexdigest()
    for file in sorted(path.iterdir()):
        if file.suffix == ".safetensors" or file.name in ("tokenizer.json", "chat_template.jinja"):
            digest.update(f"{file.name}:{sha256_of_file(file)}\n".encode())
        elif file.name == "config.json":
            config = json.loads(file.read_text())
            config.pop("transformers_version", None)
            digest.update(json.dumps(config, sort_keys=True).encode())
    return digest.hexdigest()
