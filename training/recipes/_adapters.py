"""The model that training starts from: whole, with a new adapter, or with one to go on training.

Kinds of adapter: LoRA (Hu et al. 2021, arXiv:2106.09685); DoRA (Liu et al. 2024, arXiv:2402.09353), which learns the length
of each row of the weights apart from its direction; rank-stabilised LoRA (Kalajdzievski 2023, arXiv:2312.03732), whose scale
is alpha over the square root of the rank. QLoRA (Dettmers et al. 2023, arXiv:2305.14314) is any of them on a base held in
4-bit NormalFloat; TRL then holds the adapter in bfloat16, as the paper does.
"""

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainingArguments

from training.sampling.fitness import too_large
from training.sampling.machine import memory_bytes
from training.sampling.model_facts import read_facts
from training.sampling.model_files import check_adapter, check_model

ADAPTER_KINDS = ("lora", "dora", "rslora")
QUANTISED = ("no", "4bit")


@dataclass
class AdapterArguments:
    """Where a run starts, and what it trains of it."""

    run_dir: Path = field(metadata={"help": "run folder: dataset/ in, model/ and result.json out"})
    model: str = field(metadata={"help": "the model to start from: a folder, or a name on the hub"})
    adapter_rank: int = field(default=16, metadata={"help": "of the adapter; 0 trains all weights"})
    adapter_alpha: int = field(default=32, metadata={"help": "scale of the adapter"})
    adapter_kind: str = field(default="lora", metadata={"help": "lora, dora or rslora; one to go on from stays what it is"})
    quantised_base: str = field(default="no", metadata={"help": "no, or 4bit: hold the frozen base in four bits a weight"})


@dataclass
class PolicyArguments(AdapterArguments):
    """Of recipes that train a policy."""

    adapter: str | None = field(
        default=None, metadata={"help": "an adapter to start from and go on training; where there is a reference, it is that too"}
    )


def check_adapters(args: AdapterArguments) -> None:
    """Refuse what can't be trained, before anything is loaded. Raises ValueError."""
    if args.adapter_kind not in ADAPTER_KINDS:
        raise ValueError(f"adapter_kind is {args.adapter_kind!r}, it must be one of {', '.join(ADAPTER_KINDS)}")
    if args.adapter_rank < 0:
        raise ValueError(f"adapter_rank is {args.adapter_rank}, it can't be below 0")
    if args.quantised_base not in QUANTISED:
        raise ValueError(f"quantised_base is {args.quantised_base!r}, it must be no or 4bit")
    if not trains_adapter(args) and args.adapter_kind != "lora":
        raise ValueError(f"adapter_kind is {args.adapter_kind}, but adapter_rank is 0: there is no adapter")
    if args.quantised_base == "4bit":
        if not trains_adapter(args):
            raise ValueError("quantised_base is 4bit, but adapter_rank is 0: weights of four bits can't be trained themselves")
        if missing := missing_for_4bit():
            raise ValueError(
                f"4-bit needs an NVIDIA GPU and bitsandbytes; this worker has {missing}. Set quantised_base: no, or "
                "start a worker that has both"
            )


def missing_for_4bit() -> str:
    """What this machine lacks to hold a base in four bits, in words; empty: nothing."""
    has_gpu, has_library = torch.cuda.is_available(), importlib.util.find_spec("bitsandbytes") is not None
    if has_gpu and has_library:
        return ""
    if not has_gpu and not has_library:
        return "neither"
    return "no bitsandbytes" if has_gpu else "no NVIDIA GPU"


def trains_adapter(args: AdapterArguments) -> bool:
    """Whether an adapter is trained, on a frozen base, rather than all weights."""
    return bool(getattr(args, "adapter", None) or args.adapter_rank)


def new_adapter(args: AdapterArguments, **fields: Any) -> LoraConfig | None:
    """The configuration of a new adapter on all linear layers; None where all weights are trained."""
    if not args.adapter_rank:
        return None
    return LoraConfig(
        **{"task_type": TaskType.CAUSAL_LM, **fields},
        r=args.adapter_rank,
        lora_alpha=args.adapter_alpha,
        target_modules="all-linear",
        use_dora=args.adapter_kind == "dora",
        use_rslora=args.adapter_kind == "rslora",
    )


def frozen_dtype(args: AdapterArguments, config: TrainingArguments) -> torch.dtype:
    """The type to hold the model in.

    A frozen base stays in the type that its matrices are multiplied in: autocast would round float32 weights to it again
    in every forward. The adapter itself is float32, and so are its optimiser's small steps.
    """
    return torch.bfloat16 if config.bf16 and trains_adapter(args) else torch.float32


def four_bits(args: AdapterArguments, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    """QLoRA's way to hold a base: NormalFloat4, its constants quantised too; computed with in `dtype`."""
    if args.quantised_base != "4bit":
        return None
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=["lm_head", "score"],  # a reward model's head is trained whole
    )  # fmt: skip


def check_memory(args: AdapterArguments, config: TrainingArguments) -> None:
    """Refuse a model whose weights alone, with what training keeps of each, are more than this machine has. Raises ValueError."""
    folder = Path(args.model)
    if not folder.is_dir():
        return  # a name on the hub
    a_weight = 16.0 if not trains_adapter(args) else 0.5 if args.quantised_base == "4bit" else frozen_dtype(args, config).itemsize
    needed = read_facts(folder).n_parameters * a_weight
    there = torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else memory_bytes()
    if needed > there * max(1, config.world_size):  # of several GPUs each may hold a part
        raise ValueError(too_large(args.model, needed, there, "this machine", is_trained_whole=not trains_adapter(args)))


def load_start(args: PolicyArguments, config: Any) -> dict[str, Any]:
    """What TRL's trainers take as `model`, `peft_config` and `quantization_config`; sets the dtype in `config`.

    With a new adapter the reference, where there is one, is the base model. With one to go on from, the model is loaded
    here, and TRL keeps a frozen copy of the adapter as the reference. Raises ValueError and ModelFilesError.
    """
    check_adapters(args)
    name, dtype = check_model(args.model), frozen_dtype(args, config)
    check_memory(args, config)
    quantised = four_bits(args, dtype)
    if args.adapter:
        device_map = {"": config.device} if quantised else None  # weights of four bits don't move afterwards
        base = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, quantization_config=quantised, device_map=device_map)
        return {"model": PeftModel.from_pretrained(base, check_adapter(args.adapter), is_trainable=True), "peft_config": None}
    config.model_init_kwargs = {**(config.model_init_kwargs or {}), "dtype": str(dtype).removeprefix("torch.")}
    quantisation = {"quantization_config": quantised} if quantised else {}
    return {"model": name, "peft_config": new_adapter(args), **quantisation}
