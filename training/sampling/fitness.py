"""Whether a model can be worked with at all, told by reading its folder, before anything is queued or loaded."""

import ast
import importlib.util
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from training.sampling.chat_template import tried, try_template
from training.sampling.foreign_model import read_json, refuse_code
from training.sampling.model_files import ModelFilesError, check_adapter, check_model

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
MAPPINGS = ("MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES")
NO_TEMPLATE = (
    "it has no chat template, so nobody knows how it tells turns apart: add the chat_template.jinja it was trained with, or "
    "import it again with the plain template"
)
NO_END = "its tokenizer names neither a padding token nor an end token: name them in tokenizer_config.json"


@dataclass(frozen=True)
class Conversations:
    """How a model reads conversations."""

    template: str = ""
    special: dict[str, str] = field(default_factory=dict)
    takes_system: bool = True


def why_unfit(folder: Path, *, converses: bool = True, apart: bool = True) -> str:
    """What makes the model of a folder unfit for a run, and what to do; empty: nothing that can be read.

    `converses` asks for a tokenizer and a chat template, too: all but a merge need them. `apart` tries the template in a
    process of its own: a recipe is one already.
    """
    try:
        check_model(folder)
        documents = {path.name: read_json(path) for path in _documents(folder)}
        for name, document in documents.items():
            refuse_code(name, document)
    except (ModelFilesError, OSError) as error:
        return str(error)
    if unknown := _unknown_architecture(documents["config.json"]):
        return unknown
    return _why_it_does_not_converse(folder, apart) if converses else ""


def why_adapter_unfit(folder: Path) -> str:
    """The same of an adapter's folder, without its base."""
    try:
        check_adapter(folder)
        refuse_code("adapter_config.json", read_json(folder / "adapter_config.json"))
    except (ModelFilesError, OSError) as error:
        return str(error)
    return ""


def too_large(what: str, needed: float, there: float, where: str, *, is_batch: bool = False, is_trained_whole: bool = False) -> str:
    """That something needs more memory than there is, in bytes, and what to do about it."""
    if is_batch:
        way = "make it smaller; where batches are added up before a step, add up as many more"
    else:
        way = "choose a smaller model, a machine with more memory" + (", or an adapter_rank above 0" if is_trained_whole else "")
    return f"{what} needs at least {needed / 1e9:.1f} GB of memory, and {where} has {there / 1e9:.1f} GB: {way}"


def _documents(folder: Path) -> list[Path]:
    return [folder / name for name in ("config.json", "generation_config.json", "tokenizer_config.json") if (folder / name).is_file()]


def _why_it_does_not_converse(folder: Path, apart: bool) -> str:
    if not any((folder / name).is_file() for name in TOKENIZERS):
        return f"it has no tokenizer: put the one it was trained with ({' or '.join(TOKENIZERS)}) beside its weights"
    try:
        reads = how_it_reads(folder)
    except ModelFilesError as error:
        return str(error)
    if not {"pad_token", "eos_token"} & set(reads.special):
        return NO_END
    if not reads.template:
        return NO_TEMPLATE
    return (try_template if apart else tried)(reads.template, reads.special)["problem"]


def how_it_reads(folder: Path) -> Conversations:
    """The chat template and the special tokens of a folder, where it has them. Raises ModelFilesError."""
    config: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            config |= {key: value for key, value in read_json(folder / name).items() if value}
    template = config.get("chat_template", "")
    if (folder / "chat_template.jinja").is_file():
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default", "")
    tokens = {name: value["content"] if isinstance(value, dict) else value for name, value in config.items() if name in SPECIAL}
    return Conversations(
        template if isinstance(template, str) else "", {name: text for name, text in tokens.items() if isinstance(text, str)}
    )


def _unknown_architecture(config: dict[str, Any]) -> str:
    kind, known = config.get("model_type"), known_architectures()
    if not known or kind in known:
        return ""
    if not isinstance(kind, str) or not kind:
        return "its config.json names no model_type, so nobody knows how it is built"
    return f"its architecture ({kind[:60]}) is not one that the installed transformers knows: upgrade it, or use another model"


@cache
def known_architectures() -> frozenset[str]:
    """The kinds of model that transformers can load as a language model or classifier; empty where it isn't installed.

    Read from the source of its tables: importing it would take seconds, and torch.
    """
    found = importlib.util.find_spec("transformers")
    if found is None or not found.submodule_search_locations:
        return frozenset()
    path = Path(found.submodule_search_locations[0]) / "models" / "auto" / "modeling_auto.py"
    if not path.is_file():
        return frozenset()
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in MAPPINGS:
            names |= {text.elts[0].value for text in ast.walk(node.value) if _is_entry(text)}
    return frozenset(names)


def _is_entry(node: ast.AST) -> bool:
    """Whether it is ("model_type", "ClassName")."""
    return isinstance(node, ast.Tuple) and len(node.elts) == 2 and isinstance(node.elts[0], ast.Constant)
