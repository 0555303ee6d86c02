"""What a model folder from elsewhere must be before it is taken in: checked by reading, without running any of it.

`look_at` reads names, headers and JSON only. `python -m training.sampling.foreign_model FOLDER` then loads the tokenizer
as recipes will, in a process of its own with a limit on time and memory: a chat template is a program.
"""

import json
import os
import resource
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.sampling.model_files import ModelFilesError

# What from_pretrained reads, and what people should read. All else is left behind.
TAKEN_NAMES = {
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja",
    "model.safetensors.index.json", "adapter_config.json", "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "NOTICE",
    "reward_head.json",
}  # fmt: skip
WEIGHTS = ".safetensors"
PICKLED_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npy", ".h5", ".msgpack")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")
MOST_FILES = 1_000
MOST_JSON_BYTES = 64_000_000  # tokenizer.json of the largest vocabularies takes some 35 MB
MOST_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
BYTES_OF = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1}
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | capitalize }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
SECONDS, MEMORY_BYTES = 60, 6_000_000_000


@dataclass
class Found:
    """What lies in a folder: `files` to take, `left` to leave behind with the reason, `shapes` of its tensors."""

    folder: Path
    files: list[Path] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    adapter: dict[str, Any] | None = None
    config: dict[str, Any] | None = None

    @property
    def has_tokenizer(self) -> bool:
        return any(path.name in ("tokenizer.json", "tokenizer.model", "vocab.json") for path in self.files)

    @property
    def scores(self) -> bool:
        """Whether it is a reward model: a head for one number a text."""
        if self.adapter is not None:
            return self.adapter.get("task_type") == "SEQ_CLS"
        return any("ForSequenceClassification" in str(name) for name in (self.config or {}).get("architectures") or [])


def look_at(folder: Path, *, roots: list[Path]) -> Found:
    """Read a folder's names, headers and JSON, and refuse what could run code or is broken.

    Links may lead to other places below `roots`, as those of a download cache do, and nowhere else. Raises
    ModelFilesError, naming the file and what to do.
    """
    found = Found(folder)
    paths = sorted(folder.iterdir())
    if len(paths) > MOST_FILES:
        raise ModelFilesError(f"{folder} holds {len(paths):,} files: this is no model folder")
    pickled = []
    for path in paths:
        if path.is_dir():
            found.left.append(f"{path.name}/: a folder")
            continue
        if path.is_symlink() and not any(path.resolve().is_relative_to(root) for root in roots):
            raise ModelFilesError(f"{path.name} is a link to a place that may not be read: copy the file itself")
        if not path.is_file():
            raise ModelFilesError(f"{path.name} is a link to nothing, or no plain file")
        if path.suffix == ".py":
            found.left.append(f"{path.name}: program code, which is never run")
        elif path.suffix.lower() in PICKLED_SUFFIXES:
            pickled.append(path.name)
            found.left.append(f"{path.name}: pickled or in a form that can run code when it is read")
        elif path.suffix == WEIGHTS or path.name in TAKEN_NAMES:
            with path.open("rb") as file:
                if file.read(4).startswith(PICKLE_STARTS):
                    raise ModelFilesError(f"{path.name} is a pickle or an archive under another name, which can run code when read")
            found.files.append(path)
        else:
            found.left.append(f"{path.name}: not part of a model")
    weights = [path for path in found.files if path.suffix == WEIGHTS]
    if not weights:
        which = f" only pickled weights ({', '.join(pickled[:5])})" if pickled else " no *.safetensors weights"
        raise ModelFilesError(f"{folder.name} holds{which}. Convert them to safetensors where you trust them, then import that.")
    for path in weights:
        found.shapes |= read_shapes(path)
    _check_index(found)
    documents = {path.name: read_json(path) for path in found.files if path.suffix == ".json" and path.name != "tokenizer.json"}
    for name, document in documents.items():
        refuse_code(name, document)
    found.adapter, found.config = documents.get("adapter_config.json"), documents.get("config.json")
    if found.adapter is None and found.config is None:
        raise ModelFilesError(f"{folder.name} holds neither config.json nor adapter_config.json: it is not a complete model folder")
    _check_template_names(documents.get("tokenizer_config.json", {}))
    return found


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object. Raises ModelFilesError where it is none, or far too long."""
    if path.stat().st_size > MOST_JSON_BYTES:
        raise ModelFilesError(f"{path.name} is longer than any such file should be ({path.stat().st_size:,} bytes)")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFilesError(f"{path.name} is not JSON: {str(error)[:120]}") from None
    if not isinstance(document, dict):
        raise ModelFilesError(f"{path.name} is not a JSON object")
    return document


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a safetensors file, from its header; the offsets must fit the file exactly.

    Format: 8 bytes of length, little-endian, then a JSON object, then the numbers
    (https://huggingface.co/docs/safetensors). Raises ModelFilesError.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(MOST_HEADER_BYTES, size - 8):
            raise ModelFilesError(f"{path.name} is not a safetensors file: its header does not fit the file")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            shapes, end = {}, 0
            for name, tensor in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
                shape = tuple(tensor["shape"])
                n_bytes = BYTES_OF[tensor["dtype"]]
                for side in shape:
                    if not isinstance(side, int) or side < 0:
                        raise ValueError(name)
                    n_bytes *= side
                if tensor["data_offsets"] != [end, end + n_bytes]:
                    raise ValueError(name)
                end += n_bytes
                shapes[name] = shape
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFilesError(f"{path.name} has a broken header ({type(error).__name__}: {str(error)[:80]})") from None
    if end != size - 8 - length:
        raise ModelFilesError(f"{path.name} was cut off or half copied: {size - 8 - length:,} bytes of numbers, {end:,} expected")
    return shapes


def _check_index(found: Found) -> None:
    path = next((path for path in found.files if path.name == "model.safetensors.index.json"), None)
    if path is None:
        return
    listed = read_json(path).get("weight_map")
    if not isinstance(listed, dict):
        raise ModelFilesError(f"{path.name} has no weight_map")
    names = {file.name for file in found.files}
    if missing := sorted({str(name) for name in listed.values()} - names):
        raise ModelFilesError(f"Parts of the weights are missing: {', '.join(missing[:5])}")


def refuse_code(name: str, document: Any, depth: int = 0) -> None:
    """Refuse settings that make a loader fetch or run code that isn't the library's own."""
    if not isinstance(document, dict) or depth > 20:
        return
    for key, value in document.items():
        if key in ("auto_map", "custom_pipelines") and value:
            raise ModelFilesError(f"{name} asks for program code of its own ({key}), which is never run here. Use a version of the model that the installed transformers knows by itself.")
        if key == "trust_remote_code" and value:
            raise ModelFilesError(f"{name} asks to trust program code from elsewhere ({key}): remove the line")
        if key == "auto_mapping" and isinstance(value, dict) and str(value.get("parent_library", "")).split(".")[0] != "transformers":
            raise ModelFilesError(f"{name} names program code of another library (auto_mapping)")
        if key.strip("_").startswith("attn_implementation") and "/" in json.dumps(value):
            raise ModelFilesError(f"{name} names an attention kernel from elsewhere ({key}): remove the line")
        refuse_code(name, value, depth + 1)


def _check_template_names(config: dict[str, Any]) -> None:
    template = config.get("chat_template")
    for one in template if isinstance(template, list) else []:
        name = str(one.get("name", "")) if isinstance(one, dict) else ""
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ModelFilesError("tokenizer_config.json holds a chat template with a name that is none")


# --- adapters -----------------------------------------------------------------------------------
def mismatch(adapter: dict[str, tuple[int, ...]], base: dict[str, tuple[int, ...]]) -> str:
    """Why an adapter does not fit a base, by the shapes of their tensors, or an empty text.

    A LoRA pair on a weight of shape (out, in) is A of (rank, in) and B of (out, rank) (Hu et al. 2021, arXiv:2106.09685).
    """
    n_pairs = 0
    for name, shape in adapter.items():
        module, _, part = name.removeprefix("base_model.model.").partition(".lora_")
        if part.split(".")[0] not in ("A", "B") or len(shape) != 2:
            continue
        weight = next((base[known] for known in _names_in(base, module)), None)
        if weight is None:
            return f"it changes {module}, which the base does not have"
        side = weight[-1] if part.startswith("A") else weight[0]
        ours = shape[-1] if part.startswith("A") else shape[0]
        if ours != side:
            return f"at {module} it is made for {ours} {'inputs' if part.startswith('A') else 'outputs'}, and the base has {side}"
        n_pairs += 1
    return "" if n_pairs else "it holds no LoRA weights (lora_A, lora_B)"


def _names_in(base: dict[str, tuple[int, ...]], module: str) -> list[str]:
    """A sequence classifier calls its trunk as the language model does, and its own file may leave out `model.`."""
    return [name for name in (f"{module}.weight", f"{module.removeprefix('model.')}.weight", f"model.{module}.weight") if name in base]


# --- mending ------------------------------------------------------------------------------------
def mend(folder: Path, *, plain_template: bool) -> list[str]:
    """Give a copied folder what it lacks, and say what was given; nothing where nothing is missing.

    A tokenizer without a padding token gets its end token for one, as SmolLM2 has it. A missing chat template is
    replaced by a plain one only where `plain_template` asks for that: another template is another model. Raises
    ModelFilesError where something is missing that can't be guessed.
    """
    mended = []
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.exists() else {}
    if not config.get("pad_token"):
        end = config.get("eos_token")
        if not end:
            raise ModelFilesError("Its tokenizer names neither a padding token nor an end token in tokenizer_config.json: name them there")
        config["pad_token"] = end
        path.write_text(json.dumps(config, ensure_ascii=False, indent=2), encoding="utf-8")
        text = end["content"] if isinstance(end, dict) else end
        mended.append(f"The tokenizer had no padding token: it now pads with its end token {text}")
    if not config.get("chat_template") and not (folder / "chat_template.jinja").exists():
        if not plain_template:
            raise ModelFilesError(
                "It has no chat template, so nobody knows how it was taught to tell turns apart. Add the chat_template.jinja it "
                "was trained with, or, for a model that never saw a conversation, ask for the plain template."
            )
        (folder / "chat_template.jinja").write_text(PLAIN_TEMPLATE, encoding="utf-8")
        mended.append("It had no chat template: it now has a plain one (User: … Assistant: …)")
    return mended


# --- loading the tokenizer, apart ---------------------------------------------------------------
def try_tokenizer(folder: Path) -> None:
    """Load the tokenizer and render its template in a process of its own. Raises ModelFilesError with what went wrong."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV") if name in os.environ}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).resolve().parents[2]
    environment["PYTHONPATH"] = str(root)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "training.sampling.foreign_model", str(folder)], cwd=folder, env=environment,
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ModelFilesError(f"Its tokenizer or chat template took longer than {SECONDS} s and was stopped") from None
    if done.returncode:
        told = done.stdout.strip().splitlines()[-1:] or done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise ModelFilesError(told[0][:500])


def main() -> int:
    """Load a folder's tokenizer as recipes do; prints what is wrong as one line and returns 1, or returns 0."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    sys.modules["torch"] = None  # type: ignore[assignment]  # transformers does without: its import is most of the time
    from transformers import AutoConfig, AutoTokenizer

    folder = sys.argv[1]
    messages = [{"role": "user", "content": "Where is my parcel?"}]
    try:
        if (Path(folder) / "config.json").exists():
            AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever the library finds wrong, a person is to read it
        print(f"Its configuration can't be read: {' '.join(str(error).split())[:300]}")
        return 1
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        print(f"Its tokenizer can't be loaded: {' '.join(str(error).split())[:300]}")
        return 1
    if tokenizer.pad_token_id is None:
        print("Its tokenizer has no padding token")
        return 1
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:
        print(f"Its chat template is broken: {' '.join(str(error).split())[:300]}")
        return 1
    if messages[0]["content"] not in text:
        print("Its chat template leaves out what the person said")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
