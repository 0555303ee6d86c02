"""Distillation: a policy learns to answer as a teacher does, on the project's prompts.

Context distillation (Askell et al. 2021, arXiv:2112.00861, section 2.3; Snell et al. 2022, arXiv:2209.15189): the teacher is
the policy where it starts, but reads `preamble` before each prompt; afterwards the student answers so without it. Or the
teacher is another model, with or without a preamble.

The loss (`loss: kl`) is the divergence of the two distributions of the next token, at each token of a completion: of the
teacher's (Hinton et al. 2015), or, with `written_by: student`, of the student's own, sampled anew in each step (Agarwal et
al. 2024, arXiv:2306.13649, of whose equation 1 `divergence_beta` is the beta). It needs one vocabulary. With `loss: texts`
it is the cross-entropy of the teacher's completions (Kim and Rush 2016, arXiv:1606.07947), which needs none.

TRL's DistillationTrainer gives both models the same prompt, so a preamble can't be told from it; its loss is ours, which a
test holds. A teacher on the student's own base, as in context distillation, costs no memory: the same weights answer with
its adapter, or with none.

On completions by the teacher to held-out prompts, KL and log-likelihood are given before and after, by prompt group.

Run: accelerate launch -m training.recipes.distill --config runs/42/spec.yaml --run_dir runs/42
"""

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.recipes import _environment  # noqa: F401  first: the libraries below read what it sets

# isort: split
import torch
from peft import PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    set_seed,
)
from trl.trainer.utils import use_adapter

from training.recipes._adapters import PolicyArguments, frozen_dtype, load_start, trains_adapter
from training.recipes._completions import (
    completion_logits,
    completion_mask,
    divergence,
    prompt_ids,
    sample_all,
    sample_ids,
    token_log_probs,
)
from training.recipes._data import DatasetError, Row, load_prompt_splits, read_manifest
from training.recipes._online import positions_of
from training.recipes._runlog import RunLog, launch, resume_from, write_json
from training.recipes._samples import ShowArguments, to_show
from training.recipes._settings import SmallMachine, settle
from training.recipes._statistics import ratio
from training.sampling.backends import GenerationRequest, derive_seed
from training.sampling.model_files import check_adapter, check_model, hash_model
from training.sampling.tokenizing import load_tokenizer
from training.sampling.transformers_backend import load_policy

KIND = "distill"
BASELINE_FILE, TARGETS_FILE = "baseline.json", "targets.jsonl"
STUDENT_ADAPTER, TEACHER_ADAPTER = "default", "teacher"
SHOWN = 4  # of the teacher's completions


@dataclass
class DistillArguments(ShowArguments, PolicyArguments):
    """Arguments of distillation; everything else is transformers' `TrainingArguments`."""

    preamble: str = field(default="", metadata={"help": "what the teacher reads before each prompt, and the student doesn't"})
    teacher: str | None = field(default=None, metadata={"help": "the teacher's folder; default: the policy where it starts"})
    teacher_adapter: str | None = field(default=None, metadata={"help": "an adapter on it"})
    loss: str = field(default="kl", metadata={"help": "kl, or texts: cross-entropy of the teacher's completions"})
    written_by: str = field(default="teacher", metadata={"help": "whose completions are learnt on: teacher, or student"})
    divergence_beta: float = field(default=0.0, metadata={"help": "0: KL(teacher || student); 1: the other way round"})
    completions_per_prompt: int = field(default=2, metadata={"help": "of each prompt to train on"})
    temperature: float = field(default=1.0, metadata={"help": "of the completions"})
    top_p: float = field(default=1.0, metadata={"help": "probability mass of their nucleus"})
    max_completion_length: int = field(default=64, metadata={"help": "their longest length in tokens"})
    max_prompt_length: int = field(default=512, metadata={"help": "longer prompts, preamble included, are left out and counted"})
    generation_batch_size: int = field(default=32, metadata={"help": "completions sampled at once"})
    eval_completions: int = field(default=2, metadata={"help": "of each held-out prompt; 0: no evaluation"})
    max_eval_prompts: int = field(default=64, metadata={"help": "evaluate on at most so many held-out prompts"})


@dataclass
class DistillSettings(SmallMachine, TrainingArguments):
    """Transformers' settings with the defaults of a small model on one machine; the CPU where nothing else is."""

    learning_rate: float = 2e-4
    bf16: bool | None = None
    remove_unused_columns: bool = False  # rows are read by names that no model knows
    model_init_kwargs: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        self.gradient_checkpointing_kwargs = self.gradient_checkpointing_kwargs or {"use_reentrant": False}
        super().__post_init__()


def check(args: DistillArguments, config: DistillSettings) -> None:
    """Refuse what teaches nothing, before any model is loaded. Raises ValueError."""
    for name, choices in (("loss", ("kl", "texts")), ("written_by", ("teacher", "student"))):
        if getattr(args, name) not in choices:
            raise ValueError(f"{name} is {getattr(args, name)!r}, it must be {' or '.join(choices)}")
    if not args.preamble.strip() and args.teacher is None:
        raise ValueError("There is nothing to learn: without a preamble, a teacher must be given")
    if args.written_by == "student" and args.loss == "texts":
        raise ValueError("loss is texts, which are the teacher's: set written_by: teacher, or loss: kl")
    if not 0 <= args.divergence_beta <= 1:
        raise ValueError(f"divergence_beta is {args.divergence_beta}, it must lie between 0 and 1")
    for name in ("completions_per_prompt", "max_completion_length", "generation_batch_size", "max_eval_prompts"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name} is {getattr(args, name)}, it must be at least 1")
    if args.eval_completions < 0:
        raise ValueError("eval_completions cannot be negative")
    if config.world_size > 1 and args.written_by == "student":
        raise ValueError("written_by: student runs in one process")


# --- student and teacher ------------------------------------------------------------------------
def build_student(args: DistillArguments, config: DistillSettings) -> torch.nn.Module:
    """The policy to train: whole, with a new adapter, or with the one it starts from."""
    start = load_start(args, config)
    model, peft_config = start["model"], start["peft_config"]
    if isinstance(model, str):
        quantised = start.get("quantization_config")
        model = AutoModelForCausalLM.from_pretrained(
            model,
            dtype=frozen_dtype(args, config),
            quantization_config=quantised,
            device_map={"": config.device} if quantised else None,
        )
        if peft_config is not None:
            model = get_peft_model(model, peft_config)
    if config.gradient_checkpointing and isinstance(model, PeftModel):
        model.enable_input_require_grads()
    if isinstance(model, PeftModel):
        # Checkpoints hold what is trained; the teacher's adapter is read from its own folder again.
        save_whole = model.save_pretrained

        def save_student(*args: Any, **kwargs: Any) -> None:
            save_whole(*args, **{**kwargs, "selected_adapters": [STUDENT_ADAPTER]})

        model.save_pretrained = save_student
    return model.to(config.device) if args.quantised_base == "no" else model


class Teacher:
    """Answers as the teacher, on the student's own base where that is the teacher's too, else as a model of its own."""

    def __init__(self, args: DistillArguments, config: DistillSettings, student: torch.nn.Module) -> None:
        base = args.teacher or args.model
        adapter = args.teacher_adapter if args.teacher else args.adapter
        self.tokenizer = AutoTokenizer.from_pretrained(check_model(base))
        self.shares_base = trains_adapter(args) and is_same_folder(base, args.model)
        self.adapter = None
        if self.shares_base:
            self.model = student
            if adapter:
                student.load_adapter(check_adapter(adapter), adapter_name=TEACHER_ADAPTER)
                student.set_adapter(STUDENT_ADAPTER)
                self.adapter = TEACHER_ADAPTER
        else:
            dtype = torch.bfloat16 if config.bf16 else torch.float32
            self.model, self.tokenizer = load_policy(base, adapter, dtype=dtype)
            self.model.to(config.device).eval().requires_grad_(False)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """While it is open, `model` is the teacher, without dropout. Leans on TRL's `use_adapter`."""
        was_training = self.model.training
        self.model.eval()
        with use_adapter(self.model, self.adapter) if self.shares_base else contextlib.nullcontext():
            yield
        self.model.train(was_training)


def is_same_folder(first: str, second: str) -> bool:
    """Whether two folders, or names, are the same."""
    if Path(first).is_dir() and Path(second).is_dir():
        return Path(first).resolve() == Path(second).resolve()
    return first == second


def with_preamble(messages: list[dict[str, str]], preamble: str) -> list[dict[str, str]]:
    """The prompt with the preamble as its message of the system, before what that says already."""
    if not preamble.strip():
        return messages
    first, *rest = messages
    if first["role"] == "system":
        return [{"role": "system", "content": f"{preamble}\n\n{first['content']}"}, *rest]
    return [{"role": "system", "content": preamble}, *messages]


# --- prompts and completions --------------------------------------------------------------------
def load_prompts_of(
    args: DistillArguments, config: DistillSettings, tokenizer: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase
) -> tuple[list[Row], list[Row], dict[str, int]]:
    """Prompts to train on and held out, each with its tokens as the student (`ids`) and as the teacher (`teacher_ids`)
    reads it, and counts of what was left out.

    Raises DatasetError where none is left, and ValueError where a chat template takes no preamble.
    """
    train, held_out = load_prompt_splits(args.run_dir / "dataset")
    positions = [positions_of(args.model), positions_of(args.teacher or args.model)]
    longest = min([args.max_prompt_length, *(n - args.max_completion_length for n in positions if n is not None)])
    if longest < 1:
        raise ValueError(f"max_completion_length is {args.max_completion_length}, which leaves no room for a prompt")

    def fitting(rows: list[Row]) -> list[Row]:
        found = []
        for row in rows:
            row["ids"] = prompt_ids(tokenizer, row["prompt"])
            try:
                row["teacher_ids"] = prompt_ids(teacher, with_preamble(row["prompt"], args.preamble))
            except Exception as error:  # templates raise what they like
                raise ValueError(
                    f"The teacher's chat template refuses the preamble as a message of the system ({error}): choose another "
                    "teacher, or leave the preamble out"
                ) from error
            if max(len(row["ids"]), len(row["teacher_ids"])) <= longest:
                found.append(row)
        return found

    kept, kept_out = fitting(train), fitting(held_out)
    counts = {"n_train_too_long": len(train) - len(kept), "n_eval_too_long": len(held_out) - len(kept_out)}
    if not kept:
        raise DatasetError(f"Every prompt to train on is longer than {longest} tokens, preamble included: raise max_prompt_length")
    if len(kept_out) > args.max_eval_prompts:
        # At random by the seed, and the same ones before and after.
        order = sorted(kept_out, key=lambda row: derive_seed(config.seed, "eval", row["prompt_id"]))
        counts["n_eval_set_aside"] = len(kept_out) - args.max_eval_prompts
        kept_out = order[: args.max_eval_prompts]
    return kept, kept_out, counts


def request_of(args: DistillArguments, key: str, seed: int) -> GenerationRequest:
    # The messages are not read: their tokens are given.
    return GenerationRequest(
        key=key, messages=({"role": "user", "content": ""},), seed=seed, temperature=args.temperature,
        top_p=args.top_p, max_new_tokens=args.max_completion_length,
    )  # fmt: skip


def teachers_completions(
    args: DistillArguments, config: DistillSettings, teacher: Teacher, train: list[Row], held_out: list[Row],
    tokenizer: PreTrainedTokenizerBase, run_log: RunLog,
) -> tuple[list[Row], list[Row], int]:  # fmt: skip
    """Rows of `ids`, `teacher_ids`, `completion`, `group_id` to train on and held out, and how many came out empty.

    `completion` is in the student's tokens. Where these are the teacher's too, they are the very ones it sampled.
    """
    same = has_same_vocabulary(tokenizer, teacher.tokenizer)
    n_train = args.completions_per_prompt if args.written_by == "teacher" else 0
    wanted = [(row, index, split) for split, rows, n in (("train", train, n_train), ("eval", held_out, args.eval_completions))
              for row in sorted(rows, key=lambda row: len(row["teacher_ids"])) for index in range(n)]  # fmt: skip

    def sample_batch(batch: Sequence[tuple[Row, int, str]]) -> list[Row]:
        requests = [
            request_of(args, "", derive_seed(config.seed, "teacher", split, row["prompt_id"], index))
            for row, index, split in batch
        ]
        with teacher.answering():
            found = sample_ids(teacher.model, teacher.tokenizer, [row["teacher_ids"] for row, _, _ in batch], requests)
        rows = []
        for (row, index, _), (ids, has_ended) in zip(batch, found, strict=True):
            text = teacher.tokenizer.decode(ids, skip_special_tokens=True).strip()
            if not same:  # the text without what the teacher's own tokens say of its end
                ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * has_ended
            rows.append({"prompt_id": str(row["prompt_id"]), "index": index, "text": text, "ids": ids, "ended": has_ended})
        return rows

    path = args.run_dir / TARGETS_FILE
    with config.main_process_first(desc="the teacher's completions"):
        sampled = sample_all(
            path, wanted, sample_batch, batch_size=args.generation_batch_size, run_log=run_log, is_alone=config.world_size == 1
        )
    splits: dict[str, list[Row]] = {"train": [], "eval": []}
    for (row, _, split), found in zip(wanted, sampled, strict=True):
        if found["ids"]:
            splits[split].append({**_tokens_of(row), "completion": found["ids"]})
    n_empty = len(wanted) - len(splits["train"]) - len(splits["eval"])
    if args.written_by == "student":
        splits["train"] = [{**_tokens_of(row), "completion": []} for row in train for _ in range(args.completions_per_prompt)]
    if not splits["train"]:
        raise DatasetError("Every completion of the teacher came out empty: there is nothing to learn from")
    for (row, _, _), found in list(zip(wanted, sampled, strict=True))[:SHOWN]:
        run_log.event("sample", prompt=with_preamble(row["prompt"], args.preamble), completion=found["text"])
    return splits["train"], splits["eval"], n_empty


def _tokens_of(row: Row) -> Row:
    return {name: row[name] for name in ("prompt_id", "group_id", "ids", "teacher_ids")}


def has_same_vocabulary(first: PreTrainedTokenizerBase, second: PreTrainedTokenizerBase) -> bool:
    """Whether each token is the same text for both, so that their distributions can be compared."""
    return first.get_vocab() == second.get_vocab()


# --- training -----------------------------------------------------------------------------------
class DistillTrainer(Trainer):
    """Transformers' trainer with the losses of distillation: means over the tokens of a batch."""

    def __init__(self, *, arguments: DistillArguments, teacher: Teacher, **kwargs: Any) -> None:
        super().__init__(data_collator=list, **kwargs)
        self.arguments, self.teacher = arguments, teacher
        self.model_accepts_loss_kwargs = False  # a batch's mean is divided by the batches of a step here, not by its tokens
        self.n_micro = 0

    def compute_loss(
        self, model: torch.nn.Module, inputs: list[Row], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of one batch in nats a token."""
        if self.arguments.written_by == "student":
            inputs = self.written_anew(inputs)
        nats, divergences, mask = self.token_losses(model, inputs, needs_teacher=self.arguments.loss == "kl")
        losses = nats if divergences is None else divergences
        return losses.sum() / mask.sum()

    def token_losses(
        self, model: torch.nn.Module, rows: list[Row], *, needs_teacher: bool, beta: float | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """Minus log-probability and divergence from the teacher of each token, and the mask; shape (rows, tokens)."""
        completions = [row["completion"] for row in rows]
        pad = self.processing_class.pad_token_id
        theirs = None
        if needs_teacher:
            with torch.no_grad(), self.teacher.answering():
                theirs = completion_logits(self.teacher.model, [row["teacher_ids"] for row in rows], completions, pad=pad)
        ours = completion_logits(model, [row["ids"] for row in rows], completions, pad=pad)
        mask = completion_mask(completions, device=ours.device)
        if theirs is None:
            return -token_log_probs(ours, completions), None, mask
        if ours.shape[-1] != theirs.shape[-1]:  # one is padded to a rounder number than the tokenizer has tokens
            ours, theirs = (logits[..., : len(self.processing_class)] for logits in (ours, theirs))
        beta = self.arguments.divergence_beta if beta is None else beta
        return -token_log_probs(ours, completions), divergence(ours, theirs, mask, beta=beta), mask

    def written_anew(self, rows: list[Row]) -> list[Row]:
        """The rows with completions by the student as it is now; their seeds follow from step and place alone."""
        step, self.n_micro = self.state.global_step, self.n_micro + 1
        part = self.n_micro % self.args.gradient_accumulation_steps
        seeds = [derive_seed(self.args.seed, "student", step, part, place) for place in range(len(rows))]
        found = sample_ids(
            self.accelerator.unwrap_model(self.model),
            self.processing_class,
            [row["ids"] for row in rows],
            [request_of(self.arguments, "", seed) for seed in seeds],
        )
        return [{**row, "completion": ids} for row, (ids, _) in zip(rows, found, strict=True)]

    def _prepare_inputs(self, inputs: list[Row]) -> list[Row]:
        return inputs  # token ids of several lengths, made tensors where they are used

    def floating_point_ops(self, inputs: list[Row]) -> int:
        return 0  # the trainer would ask the model, which sees no such inputs

    @torch.no_grad()
    def measure(self, rows: list[Row], *, needs_teacher: bool) -> dict[str, list[float]]:
        """Of each row its `nats`, its `kl` from the teacher where asked for, and its `tokens`."""
        was_training = self.model.training
        self.model.eval()
        found: dict[str, list[float]] = {"nats": [], "kl": [], "tokens": []}
        for start in range(0, len(rows), self.args.per_device_eval_batch_size):
            batch = rows[start : start + self.args.per_device_eval_batch_size]
            with self.accelerator.autocast():
                nats, kl, mask = self.token_losses(self.model, batch, needs_teacher=needs_teacher, beta=0.0)
            found["nats"] += nats.sum(dim=1).tolist()
            found["kl"] += [] if kl is None else kl.sum(dim=1).tolist()
            found["tokens"] += mask.sum(dim=1).tolist()
        self.model.train(was_training)
        return found


def compare(before: dict[str, list[float]], after: dict[str, list[float]], groups: list[str]) -> dict[str, Any]:
    """KL and loss before and after in nats a token, and their change, with intervals by prompt group."""
    figures = {}
    for name, column in (("kl", "kl"), ("loss", "nats")):
        if not after[column]:
            continue
        change = [later - earlier for earlier, later in zip(before[column], after[column], strict=True)]
        for when, values in (("before", before[column]), ("after", after[column]), ("change", change)):
            figures[f"{name}/{when}"] = ratio(values, after["tokens"], groups)
    return figures


# --- the run ------------------------------------------------------------------------------------
def main(args: DistillArguments, config: DistillSettings) -> None:
    """Train one policy in `args.run_dir`, and compare it with where it started on held-out prompts."""
    run_log = RunLog(args.run_dir, kind=KIND, seed=config.seed)
    settle(config, args.run_dir)
    check(args, config)
    tokenizer, teachers_tokenizer = load_tokenizer(args.model), load_tokenizer(args.teacher or args.model)
    same = has_same_vocabulary(tokenizer, teachers_tokenizer)
    if not same and args.loss == "kl":
        raise ValueError("Student and teacher have other tokens, so their distributions can't be compared: set loss: texts")
    train, held_out, counts = load_prompts_of(args, config, tokenizer, teachers_tokenizer)
    if any(counts.values()):
        run_log.status("prompts_left_out", **counts)
    set_seed(config.seed)  # a new adapter's first weights are random
    student = build_student(args, config)
    teacher = Teacher(args, config, student)
    run_log.status("sampling the teacher")
    n_held_out = len(held_out)
    rows, held_out, n_empty = teachers_completions(args, config, teacher, train, held_out, tokenizer, run_log)

    trainer = DistillTrainer(
        arguments=args, teacher=teacher, model=student, args=config, train_dataset=rows, processing_class=tokenizer,
        callbacks=[run_log, *to_show(args, run_log, [row["prompt"] for row in train])],
    )  # fmt: skip
    checkpoint = resume_from(args.run_dir, run_log)
    before, baseline = None, args.run_dir / BASELINE_FILE
    if held_out:
        # Before the first step, also of a run that goes on from a checkpoint: the policy there is no longer the first.
        if baseline.exists():
            before = json.loads(baseline.read_text(encoding="utf-8"))
        else:
            run_log.status("evaluating the start")
            before = trainer.measure(held_out, needs_teacher=same)
            if run_log.is_writer:
                write_json(baseline, before)
        if checkpoint is None:
            run_log.metrics(_means(before), step=0)
    output = trainer.train(resume_from_checkpoint=checkpoint)
    run_log.raise_if_stopped()

    figures = {}
    if before is not None:
        run_log.status("evaluating")
        after = trainer.measure(held_out, needs_teacher=same)
        figures = compare(before, after, [row["group_id"] for row in held_out])
        run_log.metrics(_means(after))
    trainer.save_model(str(args.run_dir / "model"))
    run_log.finish(
        metrics=output.metrics,
        figures=figures,
        teacher={
            "path": args.teacher or args.model,
            "hash": hash_model(args.teacher or args.model),
            "adapter": args.teacher_adapter if args.teacher else args.adapter,
            "shares_base": teacher.shares_base,
            "same_vocabulary": same,
        },
        dataset={
            "n_train": len(train),
            "n_eval": n_held_out,
            "n_completions": len(rows),
            "n_eval_completions": len(held_out),
            "n_empty": n_empty,
            **counts,
            "manifest": read_manifest(args.run_dir / "dataset"),
        },
        base_model={"path": args.model, "hash": hash_model(args.model)},
    )


def _means(measured: dict[str, list[float]]) -> dict[str, float]:
    tokens = sum(measured["tokens"])
    return {f"eval_{name}": sum(measured[column]) / tokens for name, column in (("kl", "kl"), ("loss", "nats")) if measured[column]}


if __name__ == "__main__":
    sys.exit(launch(KIND, main, (DistillArguments, DistillSettings)))
