"""Write a policy as one quantised GGUF file for serving on small machines, and measure what quantising costs.

The file holds weights, tokenizer and chat template, as llama.cpp and what builds on it read them. An adapter is merged
first, in float32. Matrices are quantised by the `gguf` package, its own reference quantisers: a weight takes 16 bits with
`f16`, 8.5 with `q8_0`, 6 with `q5_1`, 4.5 with `q4_0`. Norms stay in float32, embeddings at `q8_0` or better: they are the
output's weights too where the two are tied. The K-quants are not among what that package writes.

Then the file is read back, and both models read the original's completions of held-out prompts: KL(original || quantised)
of a token in nats, over the whole vocabulary, and how often both hold the same token for the likeliest. Intervals are by
prompt group. What is measured is the rounding of weights; a server's own arithmetic may add to it.

Llama models with a byte-level BPE alone, such as SmolLM2: others are refused before anything is written.
Run: python -m training.recipes.gguf --config runs/42/spec.yaml --run_dir runs/42
"""

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import gguf
import numpy
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerBase

from training.recipes._completions import (
    completion_logits,
    completion_mask,
    divergence,
    prompt_ids,
    sample_all,
    sample_ids,
)
from training.recipes._data import DatasetError, Row, load_prompt_splits
from training.recipes._runlog import RunLog, launch
from training.recipes._statistics import Figure, proportion, ratio
from training.sampling.backends import GenerationRequest, derive_seed
from training.sampling.device import pick_device
from training.sampling.model_files import ModelFilesError, hash_model
from training.sampling.transformers_backend import load_policy

KIND = "gguf"
TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q5_1": (gguf.GGMLQuantizationType.Q5_1, gguf.LlamaFileType.MOSTLY_Q5_1),
    "q5_0": (gguf.GGMLQuantizationType.Q5_0, gguf.LlamaFileType.MOSTLY_Q5_0),
    "q4_1": (gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
}
EMBEDDINGS = ("token_embd.weight", "output.weight")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# How a text is cut before its pieces are looked up, by the name that llama.cpp has for it.
CUTS = {
    "gpt-2": [BYTE_LEVEL],
    "smollm": [{"type": "Digits", "individual_digits": True}, BYTE_LEVEL],
    "llama-bpe": [
        {"type": "Split", "pattern": {"Regex": LLAMA_3_WORDS}, "behavior": "Isolated", "invert": False},
        {**BYTE_LEVEL, "use_regex": False},
    ],
}
PROBES = ("Where is my parcel? It's 1234 days late.", "  Grüße,\n\n\tdéjà vu 東京 🙂 — don't!", "def f(x):\n    return x**2  # 0.5")
TOKENS_AT_ONCE = 1024  # whose distributions are held in memory


@dataclass
class GGUFArguments:
    """Arguments of writing a GGUF file."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/prompts.jsonl in, model/ and result.json out"})
    model: str = field(metadata={"help": "the policy: a folder, or a name on the hub"})
    adapter: str | None = field(default=None, metadata={"help": "a LoRA adapter to merge first"})
    name: str = field(default="", metadata={"help": "what the file says it is; default: the folder's name"})
    licence: str = field(default="", metadata={"help": "what the file says its licence is"})
    quantisation: str = field(default="q8_0", metadata={"help": f"of matrices: {', '.join(TYPES)}"})
    completions_per_prompt: int = field(default=1, metadata={"help": "completions of each prompt to compare on"})
    temperature: float = field(default=1.0, metadata={"help": "of these; 0 for greedy decoding"})
    max_new_tokens: int = field(default=64, metadata={"help": "longest completion, in tokens"})
    max_prompts: int = field(default=128, metadata={"help": "compare on at most so many held-out prompts, drawn at random"})
    max_prompt_length: int = field(default=512, metadata={"help": "longer prompts, in tokens, are left out and counted"})
    batch_size: int = field(default=16, metadata={"help": "completions sampled at once"})
    seed: int = field(default=42, metadata={"help": "of everything random"})

    def __post_init__(self) -> None:
        if self.quantisation not in TYPES:
            raise ValueError(f"quantisation is {self.quantisation!r}, it must be one of: {', '.join(TYPES)}")
        for name in ("completions_per_prompt", "max_new_tokens", "max_prompts", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, it must be at least 1")


# --- what can be written ------------------------------------------------------------------------
def check_architecture(config: Any) -> None:
    """Raise ModelFilesError, saying what is in the way, unless the model is a plain Llama."""
    if config.model_type != "llama":
        raise ModelFilesError(f"Only Llama models are written as GGUF; this one is {config.model_type!r}")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") != "default":
        raise ModelFilesError(f"Its positions are scaled by {rope['rope_type']!r}, which is not written as GGUF here")
    for name in ("attention_bias", "mlp_bias"):
        if getattr(config, name, False):
            raise ModelFilesError(f"It has biases ({name}), which a Llama in GGUF has none of")
    if config.hidden_act != "silu":
        raise ModelFilesError(f"Its activation is {config.hidden_act!r}; a Llama in GGUF has silu")


def cut_of(described: dict[str, Any]) -> str:
    """The name of how a tokenizer.json cuts texts. Raises ModelFilesError where llama.cpp has none that is known here."""
    if described["model"].get("type") != "BPE" or described["model"].get("byte_fallback"):
        raise ModelFilesError("Only byte-level BPE tokenizers are written as GGUF; this model has another")
    if described.get("normalizer"):
        raise ModelFilesError(f"Its tokenizer rewrites texts first ({described['normalizer'].get('type')}), which GGUF can't say")
    cut = described.get("pre_tokenizer") or {}
    steps = cut.get("pretokenizers") if cut.get("type") == "Sequence" else [cut]
    for name, known in CUTS.items():
        same = len(steps) == len(known) and all(
            all(step.get(key) == value for key, value in wanted.items()) for step, wanted in zip(steps, known, strict=True)
        )
        if same:
            return name
    raise ModelFilesError(
        f"Its tokenizer cuts texts in a way that is not among {', '.join(CUTS)}, so a server would read other tokens: {json.dumps(cut)[:300]}"
    )


# --- writing ------------------------------------------------------------------------------------
def write_gguf(path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, args: GGUFArguments) -> dict[str, int]:
    """Write the whole file; returns `n_tensors` and `n_not_quantised`, matrices whose rows are no whole blocks."""
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
    _add_facts(writer, model, args)
    _add_tokenizer(writer, tokenizer, model.config.vocab_size)
    counts = {"n_tensors": 0, "n_not_quantised": 0}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, model.config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        data = tensor.detach().float().cpu().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = model.config.num_attention_heads if name.endswith("q_proj.weight") else model.config.num_key_value_heads
            data = interleave(data, heads)
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if written is None:
            raise ModelFilesError(f"The weight {name} has no place in a Llama's GGUF")
        wanted = type_of(written, data, args.quantisation)
        counts["n_tensors"] += 1
        counts["n_not_quantised"] += data.ndim > 1 and wanted != TYPES[args.quantisation][0] and written not in EMBEDDINGS
        writer.add_tensor(written, gguf.quants.quantize(data, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return counts


def interleave(weights: numpy.ndarray, heads: int) -> numpy.ndarray:
    """Rows of queries or keys in the order of llama.cpp: it turns neighbours where transformers turns the two halves of a head."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return numpy.ascontiguousarray(halves.swapaxes(1, 2).reshape(weights.shape))


def type_of(name: str, data: numpy.ndarray, quantisation: str) -> gguf.GGMLQuantizationType:
    """How one tensor is stored: norms in float32, embeddings in 8 bits or more, rows that are no whole blocks in float16."""
    if data.ndim == 1:
        return gguf.GGMLQuantizationType.F32
    wanted = TYPES[quantisation][0]
    if name in EMBEDDINGS and quantisation != "f16":
        wanted = gguf.GGMLQuantizationType.Q8_0
    block, _ = gguf.GGML_QUANT_SIZES[wanted]
    return wanted if data.shape[-1] % block == 0 else gguf.GGMLQuantizationType.F16


def _add_facts(writer: gguf.GGUFWriter, model: PreTrainedModel, args: GGUFArguments) -> None:
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(args.name or Path(args.model).name)
    if args.licence:
        writer.add_license(args.licence)
    writer.add_file_type(TYPES[args.quantisation][1])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base((config.rope_parameters or {}).get("rope_theta", 10_000.0))
    writer.add_rope_dimension_count(head_dim)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerBase, vocabulary: int) -> None:
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens = [f"[PAD{place}]" for place in range(vocabulary)]  # a model may have more rows than its tokenizer has tokens
    types = [gguf.TokenType.UNUSED] * vocabulary
    for text, place in described["model"]["vocab"].items():
        tokens[place], types[place] = text, gguf.TokenType.NORMAL
    for added in described["added_tokens"]:
        tokens[added["id"]] = added["content"]
        types[added["id"]] = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in described["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(cut_of(described))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    plain = tokenizer("a")["input_ids"]
    writer.add_add_bos_token(tokenizer.bos_token_id is not None and plain[0] == tokenizer.bos_token_id)
    writer.add_add_space_prefix(False)
    for add, token in (
        (writer.add_bos_token_id, tokenizer.bos_token_id), (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id), (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):  # fmt: skip
        if token is not None:
            add(token)
    writer.add_chat_template(tokenizer.chat_template)


# --- what it costs ------------------------------------------------------------------------------
def read_back(path: Path, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[list[dict[str, str]]]) -> PreTrainedModel:
    """The model of a GGUF file in float32. Raises ValueError where its tokenizer reads anything otherwise than the original's."""
    place = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    theirs = AutoTokenizer.from_pretrained(**place)
    for text in PROBES:
        if theirs(text)["input_ids"] != tokenizer(text)["input_ids"]:
            raise ValueError(f"The tokenizer in the file reads {text!r} otherwise than the original's: it is not kept")
    for messages in prompts:
        if prompt_ids(theirs, messages) != prompt_ids(tokenizer, messages):
            raise ValueError("The chat template in the file writes a prompt otherwise than the original's: the file is not kept")
    return AutoModelForCausalLM.from_pretrained(**place, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32).eval()


def held_out_prompts(args: GGUFArguments, tokenizer: PreTrainedTokenizerBase, positions: int) -> tuple[list[Row], dict[str, int]]:
    """The prompts to compare on and counts of what was left out. Raises DatasetError where none is left."""
    rows, _ = load_prompt_splits(args.run_dir / "dataset")
    longest = min(args.max_prompt_length, positions - args.max_new_tokens)
    kept = [row for row in rows if len(prompt_ids(tokenizer, row["prompt"])) <= longest]
    if not kept:
        raise DatasetError(f"Every prompt is longer than {longest} tokens, which max_prompt_length or the model's positions allow")
    counts = {"n_too_long": len(rows) - len(kept), "n_set_aside": max(0, len(kept) - args.max_prompts)}
    kept = sorted(kept, key=lambda row: derive_seed(args.seed, KIND, row["prompt_id"]))[: args.max_prompts]
    return kept, counts


def sample(
    args: GGUFArguments, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row], run_log: RunLog
) -> list[Row]:
    """The original's completions: rows of `prompt_id`, `ids` and `group_id`; those sampled before a kill are kept."""
    by_id = {str(row["prompt_id"]): row for row in prompts}
    encoded = {name: prompt_ids(tokenizer, row["prompt"]) for name, row in by_id.items()}
    in_order = sorted(by_id, key=lambda name: (len(encoded[name]), name))
    wanted = [(name, index) for name in in_order for index in range(args.completions_per_prompt)]

    def sample_batch(batch: Sequence[tuple[str, int]]) -> list[Row]:
        requests = [
            GenerationRequest(
                key=f"{name} {index}", messages=({"role": "user", "content": ""},),  # not read: its tokens are given
                seed=derive_seed(args.seed, name, index), temperature=args.temperature, top_p=1.0, max_new_tokens=args.max_new_tokens,
            )
            for name, index in batch
        ]  # fmt: skip
        found = sample_ids(model, tokenizer, [encoded[name] for name, _ in batch], requests)
        return [
            {"prompt_id": name, "ids": ids, "group_id": by_id[name]["group_id"], "before": encoded[name]}
            for (name, _), (ids, _) in zip(batch, found, strict=True)
        ]

    run_log.status("sampling the original")
    return sample_all(args.run_dir / "sampled.jsonl", wanted, sample_batch, batch_size=args.batch_size, run_log=run_log)


@torch.inference_mode()
def compare(original: PreTrainedModel, quantised: PreTrainedModel, rows: Sequence[Row], *, pad: int, run_log: RunLog) -> dict[str, Figure]:
    """KL(original || quantised) of a token in nats, and the share of tokens where both find the same one likeliest."""
    run_log.status("comparing the distributions")
    batch_size = max(1, TOKENS_AT_ONCE // max(len(row["ids"]) for row in rows))
    kl_nats: list[float] = []
    n_tokens: list[int] = []
    same: list[float] = []
    groups: list[str] = []
    for start in range(0, len(rows), batch_size):
        run_log.progress(start, len(rows), "compared completions")
        run_log.raise_if_stopped()
        batch = rows[start : start + batch_size]
        before, completions = [row["before"] for row in batch], [row["ids"] for row in batch]
        first, second = (completion_logits(model, before, completions, pad=pad) for model in (original, quantised))
        mask = completion_mask(completions, device=first.device)
        kl_nats += divergence(second, first, mask, beta=0.0).sum(dim=1).tolist()
        agree = first.argmax(dim=-1) == second.argmax(dim=-1)
        for row, found in zip(batch, agree.tolist(), strict=True):
            n_tokens.append(len(row["ids"]))
            same += map(float, found[: len(row["ids"])])
            groups += [row["group_id"]] * len(row["ids"])
    of_rows = [row["group_id"] for row in rows]
    return {"kl/per_token": ratio(kl_nats, n_tokens, of_rows), "top_1_agreement": proportion(same, groups)}


# --- the run ------------------------------------------------------------------------------------
def main(args: GGUFArguments) -> None:
    """Write, read back, compare. A run that was killed on the way begins anew but for what was sampled."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=args.seed)
    original, tokenizer = load_policy(args.model, args.adapter, dtype=torch.float32)
    check_architecture(original.config)
    cut_of(json.loads(tokenizer.backend_tokenizer.to_str()))
    prompts, counts = held_out_prompts(args, tokenizer, original.config.max_position_embeddings)
    out, partial = args.run_dir / "model", args.run_dir / "model.new"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    path = partial / f"model.{args.quantisation}.gguf"
    run_log.status("quantising")
    counts |= write_gguf(path, original, tokenizer, args)
    if any(counts.values()):
        run_log.status("written", **counts)
    run_log.raise_if_stopped()
    quantised = read_back(path, tokenizer, [row["prompt"] for row in prompts])
    original, quantised = original.to(pick_device()).eval(), quantised.to(pick_device())
    rows = sample(args, original, tokenizer, prompts, run_log)
    figures = compare(original, quantised, rows, pad=tokenizer.pad_token_id, run_log=run_log)
    file_bytes, weight_bytes = path.stat().st_size, 2 * original.num_parameters()
    figures["size_ratio"] = {
        "value": file_bytes / weight_bytes, "low": None, "high": None, "n": counts["n_tensors"],
        "method": "counted: the file's bytes over those of all weights at 16 bits",
    }  # fmt: skip
    metrics = {**counts, "file_bytes": file_bytes, **{name: figure["value"] for name, figure in figures.items()}}
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    run_log.metrics(metrics)
    run_log.finish(
        metrics=metrics,
        figures=figures,
        arguments={name: value for name, value in asdict(args).items() if name != "run_dir"},
        base_model={"path": args.model, "hash": hash_model(args.model), "adapter": args.adapter},
        dataset={"n_eval": len(prompts), "n_completions": len(rows)},
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (GGUFArguments,)))
