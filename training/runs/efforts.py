"""What a run of each kind computes, counted from its options: steps, passes over tokens, completions written. No Django here.

An effort is counted under assumptions, once such that everything goes well and once such that nothing does (see
estimates.py): so that what is told is a range.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from training.sampling.model_facts import ModelFacts

Options = dict[str, Any]
SHOWN_COMPLETIONS = 4


@dataclass(frozen=True)
class Lengths:
    """Tokens of a sample of what a run reads: of its `prompts`, and of its `texts`, which are prompts with a completion.

    `uncertainty` is 0 where the model's own tokenizer counted, else the share by which they may be off.
    """

    prompts: tuple[int, ...] = ()
    texts: tuple[int, ...] = ()
    uncertainty: float = 0.0


@dataclass(frozen=True)
class Data:
    """How many rows (pairs, texts or prompts) a run trains on and is evaluated on, and how long they are."""

    n_train: int = 0
    n_eval: int = 0
    lengths: Lengths = field(default_factory=Lengths)
    n_distinct: int = 0  # of pairs: different texts in them, where they were counted
    n_texts: int = 0  # of an evaluation: held-out texts
    n_asked: int = 1  # of an explanation: completions


@dataclass(frozen=True)
class Assumed:
    """What isn't known beforehand. `share_of_peak` of the speed of one large matrix product is reached."""

    share_of_peak: float
    share_on_gpu: float
    layer_seconds: float  # a layer's own time in one pass, whatever the batch
    step_seconds: float
    start_seconds: float
    written_share: float  # of the longest completion
    length_factor: float  # 1 or -1: which way lengths are off
    adapter_pass: float  # a training step on a frozen base, in forward passes
    activations: tuple[float, float]  # numbers kept a token and layer, by hidden and by intermediate size
    logits: float  # copies of the scores of all tokens of the vocabulary that are held at once
    process_bytes: float
    is_cached: bool = False  # what a reward head encodes was encoded before


@dataclass(frozen=True)
class Effort:
    """`passes` are forward passes of one token through the model, `heads` tokens scored against the vocabulary.

    `written` are the tokens that are sampled one after the other: pairs of how many steps, and of how many completions at
    once. `batch_tokens` go through the model together, `scored_tokens` of them are scored.
    """

    steps: int = 0
    rows: int = 0
    passes: float = 0.0
    heads: float = 0.0
    batches: float = 0.0
    written: tuple[tuple[float, float], ...] = ()
    batch_tokens: float = 0.0
    scored_tokens: float = 0.0
    row_tokens: float = 0.0  # of one row: attention grows with its square
    cached_tokens: float = 0.0  # keys and values held while completions are written
    trains: bool = True
    models_beside: float = 0.0  # further models in memory, in units of this one

    @property
    def tokens_written(self) -> float:
        return sum(steps * at_once for steps, at_once in self.written)


def padded(lengths: Sequence[int], at_once: int, *, longest: int | None, assumed: Assumed, uncertainty: float = 0.0) -> float:
    """Mean tokens of a row with its padding, where `at_once` rows are drawn at random: the mean of their longest.

    Rows longer than `longest` are left out.
    """
    factor = 1.0 + assumed.length_factor * uncertainty
    kept = sorted(length * factor for length in lengths if longest is None or length <= longest)
    if not kept:
        return float(longest or 256)
    n = len(kept)
    return sum(length * (((rank + 1) / n) ** at_once - (rank / n) ** at_once) for rank, length in enumerate(kept))


def mean(lengths: Sequence[int], longest: int | None = None) -> float:
    kept = [length for length in lengths if longest is None or length <= longest]
    return sum(kept) / len(kept) if kept else 0.0


def n_fitting(n: int, lengths: Sequence[int], longest: int | None) -> int:
    """Of n rows those not longer than `longest`, by the share in the sample."""
    if longest is None or not lengths:
        return n
    return round(n * sum(length <= longest for length in lengths) / len(lengths))


def steps_of(options: Options, rows: int) -> int:
    """Optimiser steps over so many rows."""
    if (most := options.get("max_steps") or -1) > 0:
        return int(most)
    a_step = options["per_device_train_batch_size"] * (options.get("gradient_accumulation_steps") or 1) * options.get("world", 1)
    return max(1, math.ceil(math.ceil(rows / a_step) * (options.get("num_train_epochs") or 1)))


def _offline(options: Options, data: Data, assumed: Assumed, *, texts_a_row: int, frozen_passes: float, evaluations: int = 1) -> Effort:
    """Training on rows of a snapshot. `frozen_passes` are forward passes of each trained token beside those that learn."""
    longest, lengths = options.get("max_length"), data.lengths
    accumulation = options.get("gradient_accumulation_steps") or 1
    batch = options["per_device_train_batch_size"]
    a_text = padded(lengths.texts, batch * texts_a_row, longest=longest, assumed=assumed, uncertainty=lengths.uncertainty)
    if options.get("group_by_length") or options.get("on_cpu"):  # there each text is read without its padding
        a_text = min(a_text, mean(lengths.texts, longest) * 1.1 or a_text)
    rows = n_fitting(data.n_train, lengths.texts, longest)
    steps = steps_of(options, rows)
    seen = steps * accumulation * batch * options.get("world", 1)
    if (options.get("max_steps") or -1) <= 0:  # the last batch of a pass is smaller: never more rows than there are
        seen = max(1, min(seen, math.ceil(rows * (options.get("num_train_epochs") or 1))))
    n_eval = min(data.n_eval, options.get("max_eval_pairs") or options.get("max_eval_rows") or data.n_eval)
    answer = max(1.0, a_text - mean(lengths.prompts)) if lengths.prompts else a_text / 2
    trained, evaluated = seen * texts_a_row * a_text, evaluations * n_eval * texts_a_row * a_text
    shown = options.get("sample_every_steps") or 0
    learning = learning_passes(options, assumed)
    return Effort(
        steps=steps,
        rows=rows,
        passes=trained * (learning + frozen_passes) + evaluated * (1 + min(1.0, frozen_passes)),
        heads=answer / a_text * (trained * (3 + frozen_passes) + evaluated),
        batches=(steps * accumulation) * (learning + frozen_passes) + evaluations * n_eval / batch,
        written=((options.get("sample_tokens", 32) * (steps // shown), SHOWN_COMPLETIONS),) if shown else (),
        batch_tokens=batch * texts_a_row * a_text,
        scored_tokens=batch * texts_a_row * answer,
        row_tokens=a_text,
        models_beside=1.0 if frozen_passes and not options.get("adapter_rank") else 0.0,
    )


def learning_passes(options: Options, assumed: Assumed) -> float:
    """A training step on a token, in forward passes: forward and backward, the weights' gradients where all are trained."""
    passes = assumed.adapter_pass if options.get("adapter_rank", 16) else 3.0
    return passes + (1.0 if options.get("gradient_checkpointing") else 0.0)


def sft(options: Options, data: Data, assumed: Assumed) -> Effort:
    return _offline(options, data, assumed, texts_a_row=1, frozen_passes=0, evaluations=2)  # before and after


def dpo(options: Options, data: Data, assumed: Assumed) -> Effort:
    return _offline(options, data, assumed, texts_a_row=2, frozen_passes=1)


def reward(options: Options, data: Data, assumed: Assumed) -> Effort:
    effort = _offline(options, data, assumed, texts_a_row=2, frozen_passes=0)
    return replace(effort, heads=0.0, scored_tokens=0.0, written=())


def kto(options: Options, data: Data, assumed: Assumed) -> Effort:
    """Beside each completion one that belongs to another prompt is read, for the reference point; both by the reference, too."""
    epochs = options.get("num_train_epochs") or 1
    by_reference = 2.0 / max(1.0, epochs) if options.get("precompute_ref_log_probs") else 2.0
    return _offline(options, data, assumed, texts_a_row=1, frozen_passes=1 + by_reference)


def reward_head(options: Options, data: Data, assumed: Assumed) -> Effort:
    """Each text is encoded once, unless it was before; fitting takes no time beside it."""
    longest, batch = options.get("max_length") or 1024, options.get("batch_size") or 32
    a_text = mean(data.lengths.texts) * (1 + assumed.length_factor * data.lengths.uncertainty) or 256.0
    a_text = min(a_text, longest)
    texts = data.n_distinct * (1 + data.n_eval / max(1, data.n_train)) if data.n_distinct else 2 * (data.n_train + data.n_eval)
    texts = 0 if assumed.is_cached else texts
    return Effort(
        rows=data.n_train, passes=texts * a_text, batches=texts / batch, batch_tokens=batch * a_text, row_tokens=a_text, trains=False
    )


def _online(options: Options, data: Data, assumed: Assumed, *, reward_models: int, frozen_passes: float) -> Effort:
    """Rollouts, their rewards, and learning from them; prompts that are held out are answered before and after."""
    lengths, generations = data.lengths, options.get("num_generations") or 1
    batch, accumulation = options["per_device_train_batch_size"], options.get("gradient_accumulation_steps") or 1
    at_once = batch * (options.get("steps_per_generation") or accumulation)
    iterations = options.get("num_iterations") or 1
    longest = options.get("max_prompt_length")
    prompts = n_fitting(data.n_train, lengths.prompts, longest)
    most_new = options["max_completion_length"]
    new = most_new * assumed.written_share
    prompt = padded(lengths.prompts, at_once, longest=longest, assumed=assumed, uncertainty=lengths.uncertainty)
    whole_rollouts = max(1, prompts // max(1, at_once // generations))  # prompts that don't fill one are left for later
    steps = steps_of(options, whole_rollouts * at_once * iterations)
    learnt = steps * batch * accumulation  # completions, each time that one is learnt from
    rollouts = math.ceil(learnt / iterations / at_once)
    sampled = rollouts * at_once
    n_eval = min(data.n_eval, options.get("max_eval_prompts") or data.n_eval) * (options.get("eval_completions") or 0) * 2
    eval_batch = min(n_eval or 1, options.get("eval_batch_size") or 32)
    whole = prompt + new
    learning = learning_passes(options, assumed)
    return Effort(
        steps=steps,
        rows=prompts,
        passes=learnt * whole * learning + sampled * whole * (frozen_passes + reward_models) + sampled * prompt
        + n_eval * (prompt + whole * reward_models),
        heads=(learnt * 3 + sampled * frozen_passes) * new,
        batches=steps * accumulation * learning + rollouts * (1 + frozen_passes + reward_models),
        written=((rollouts * new, at_once), (math.ceil(n_eval / eval_batch) * new, eval_batch)),
        batch_tokens=batch * whole,
        scored_tokens=batch * new,
        row_tokens=whole,
        cached_tokens=max(at_once, eval_batch if n_eval else 0) * (prompt + most_new),
        models_beside=1.0 if frozen_passes >= 1 and not options.get("adapter_rank") else 0.0,
    )  # fmt: skip


def grpo(options: Options, data: Data, assumed: Assumed) -> Effort:
    frozen = (1.0 if options.get("beta") else 0.0) + (1.0 if (options.get("num_iterations") or 1) > 1 else 0.0)
    return _online(options, data, assumed, reward_models=options.get("reward_models", 1), frozen_passes=frozen)


def ppo(options: Options, data: Data, assumed: Assumed) -> Effort:
    """The critic reads what the policy reads: the values of a rollout take one more pass."""
    return _online(options, data, assumed, reward_models=options.get("reward_models", 1), frozen_passes=3.0)


def distill(options: Options, data: Data, assumed: Assumed) -> Effort:
    lengths, longest = data.lengths, options.get("max_prompt_length")
    batch, accumulation = options["per_device_train_batch_size"], options.get("gradient_accumulation_steps") or 1
    prompts = n_fitting(data.n_train, lengths.prompts, longest)
    texts = prompts * options["completions_per_prompt"]
    new = options["max_completion_length"] * assumed.written_share
    prompt = padded(lengths.prompts, batch, longest=longest, assumed=assumed, uncertainty=lengths.uncertainty)
    steps = steps_of(options, texts)
    n_eval = min(data.n_eval, options.get("max_eval_prompts") or data.n_eval) * (options.get("eval_completions") or 0)
    at_once = min(options.get("generation_batch_size") or 32, max(1, texts + n_eval))
    whole, learnt = prompt + new, steps * batch * accumulation * options.get("world", 1)
    learning = learning_passes(options, assumed)
    return Effort(
        steps=steps,
        rows=prompts,
        passes=learnt * whole * (learning + 1) + (texts + n_eval) * prompt + n_eval * whole * 4,
        heads=(learnt * 4 + n_eval * 4) * new,
        batches=steps * accumulation * (learning + 1) + n_eval / batch * 4,
        written=((math.ceil((texts + n_eval) / at_once) * new, at_once),),
        batch_tokens=batch * whole,
        scored_tokens=batch * new * 3,  # the whole distributions of both
        row_tokens=whole,
        cached_tokens=at_once * (prompt + options["max_completion_length"]),
        models_beside=1.0 if options.get("other_model") else 0.0,
    )


def sample(options: Options, data: Data, assumed: Assumed) -> Effort:
    n = data.n_train * options["completions_per_prompt"]
    new, most_new = options["max_new_tokens"] * assumed.written_share, options["max_new_tokens"]
    at_once = min(options["batch_size"], max(1, n))
    prompt = padded(data.lengths.prompts, at_once, longest=None, assumed=assumed, uncertainty=data.lengths.uncertainty)
    return Effort(
        rows=data.n_train, passes=n * prompt, batches=n / at_once, written=((math.ceil(n / at_once) * new, at_once),),
        batch_tokens=at_once * prompt, row_tokens=prompt + new, cached_tokens=at_once * (prompt + most_new), trains=False,
    )  # fmt: skip


def evaluate(options: Options, data: Data, assumed: Assumed) -> Effort:
    longest = options.get("max_prompt_length")
    prompts = min(n_fitting(data.n_eval, data.lengths.prompts, longest), options.get("max_prompts") or data.n_eval)
    models = 2 if options.get("other_model") else 1
    n = prompts * options["completions_per_prompt"]
    new = options["max_new_tokens"] * assumed.written_share
    at_once = min(options["batch_size"], max(1, n))
    prompt = padded(data.lengths.prompts, at_once, longest=longest, assumed=assumed, uncertainty=data.lengths.uncertainty)
    texts = min(data.n_texts, options.get("max_texts") or data.n_texts)
    a_text = mean(data.lengths.texts, options.get("max_length")) or 256.0
    return Effort(
        rows=prompts,
        passes=models * n * (prompt + (prompt + new) * (2 + options.get("reward_models", 0))) + models * texts * a_text,
        heads=models * (n * new * 2 + texts * a_text),
        batches=models * (n / at_once * 3 + texts / at_once),
        written=((models * math.ceil(n / at_once) * new, at_once),),
        batch_tokens=at_once * (prompt + new),
        scored_tokens=at_once * new,
        row_tokens=prompt + new,
        cached_tokens=at_once * (prompt + options["max_new_tokens"]),
        trains=False,
        models_beside=1.0 if options.get("other_model_is_whole") else 0.0,
    )


def merge(options: Options, data: Data, assumed: Assumed) -> Effort:
    return Effort(rows=1, trains=False, models_beside=1.0)


def gguf(options: Options, data: Data, assumed: Assumed) -> Effort:
    """The file is written in a moment; then held-out prompts are answered by the model and by the file."""
    return replace(evaluate({**options, "other_model": True}, data, assumed), models_beside=1.0)


def explain(options: Options, data: Data, assumed: Assumed) -> Effort:
    """Up to twice the largest number of points in all, forward and backward; or a head that pools by the mean: one pass."""
    points = 1 if assumed.length_factor < 0 else 2 * (options.get("max_path_steps") or 128)
    a_text = mean(data.lengths.texts) or 256.0
    passes = data.n_asked * (points * 3 + 24)
    return Effort(rows=data.n_asked, passes=passes * a_text, batches=passes, batch_tokens=8 * a_text, row_tokens=a_text, trains=False)


EFFORTS: dict[str, Callable[[Options, Data, Assumed], Effort]] = {
    "sample": sample, "reward_head": reward_head, "reward": reward, "dpo": dpo, "sft": sft, "kto": kto, "grpo": grpo,
    "rloo": grpo, "encode": reward_head, "layers": reward_head, "ppo": ppo, "distill": distill, "evaluate": evaluate, "merge": merge, "gguf": gguf, "explain": explain,
}  # fmt: skip


def effort_of(kind: str, options: Options, data: Data, assumed: Assumed) -> Effort:
    """`options` are those of the recipe with its defaults; also `reward_models`, how many there are, `other_model`, whether
    there is one, `world`, how many processes train, and `on_cpu`.
    """
    return EFFORTS[kind](options, data, assumed)


def flops_of(effort: Effort, model: ModelFacts) -> float:
    """Operations of the passes: two a weight and token, attention by half the row, and the scores of the vocabulary."""
    a_token = 2.0 * model.n_active + 2.0 * model.layers * model.hidden * effort.row_tokens
    return effort.passes * a_token + effort.heads * 2.0 * model.vocabulary * model.hidden
