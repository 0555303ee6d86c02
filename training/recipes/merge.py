"""Merge a LoRA adapter into its base model, so that the policy loads without PEFT.

Hu et al. 2021 (arXiv:2106.09685), section 4.1: the merged weight is W + (alpha / r) B A; DoRA and
rank-stabilised LoRA are merged by their own rules (see `_adapters.py`). It is added in float32, and the
next-token logits of a fixed conversation are compared before and after.
Run: python -m training.recipes.merge --config runs/42/spec.yaml --run_dir runs/42
"""

import shutil
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from training.recipes._runlog import RunLog, launch
from training.sampling.model_files import ModelFilesError, check_adapter, check_model, hash_model

KIND = "merge"
PROBE = [{"role": "user", "content": "Where is my parcel? Please answer in one sentence."}]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCE = 1e-2  # logits in float32: more than rounding means that something was left out


@dataclass
class MergeArguments:
    """Arguments of merging."""

    run_dir: Path = field(metadata={"help": "run folder: model/ and result.json out"})
    model: str = field(metadata={"help": "the base model: a folder, or a name on the hub"})
    adapter: str | None = field(default=None, metadata={"help": "the LoRA adapter"})
    dtype: str = field(default="base", metadata={"help": "of the merged weights: base, float32 or bfloat16"})


@torch.inference_mode()
def probe_logits(model: torch.nn.Module, input_ids: torch.Tensor) -> torch.Tensor:
    """Logits of every position of the probe, shape (tokens, vocabulary), in float32."""
    return model(input_ids=input_ids).logits[0].float()


def main(args: MergeArguments) -> None:
    """Merge, check, save. A run that was killed on the way begins anew: nothing of it counts until all is there."""
    run_log = RunLog(args.run_dir, kind=KIND)
    if args.adapter is None:
        raise ModelFilesError("There is no adapter to merge: the model is whole already")
    tokenizer = AutoTokenizer.from_pretrained(check_model(args.model))
    base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    dtype = DTYPES[args.dtype] if args.dtype in DTYPES else AutoConfig.from_pretrained(args.model).dtype or torch.float32
    policy = PeftModel.from_pretrained(base, check_adapter(args.adapter)).eval()
    input_ids = tokenizer.apply_chat_template(PROBE, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]
    with_adapter = probe_logits(policy, input_ids)
    run_log.status("merging")
    run_log.progress(1, 3, "steps")
    run_log.raise_if_stopped()
    merged = policy.merge_and_unload(safe_merge=True)
    difference = float((probe_logits(merged, input_ids) - with_adapter).abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(
            f"The merged model differs from the adapter by {difference:.3g} in its logits: the adapter does more than "
            "change weights, so it can't be merged"
        )
    run_log.progress(2, 3, "steps")
    out, partial = args.run_dir / "model", args.run_dir / "model.new"
    shutil.rmtree(partial, ignore_errors=True)
    merged.to(dtype).save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    shutil.rmtree(out, ignore_errors=True)
    partial.rename(out)
    run_log.progress(3, 3, "steps")
    metrics = {"max_logit_difference": difference}
    run_log.metrics(metrics)
    run_log.finish(
        metrics=metrics,
        arguments={name: value for name, value in asdict(args).items() if name != "run_dir"},
        base_model={"path": args.model, "hash": hash_model(args.model), "adapter": args.adapter},
    )


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (MergeArguments,)))
