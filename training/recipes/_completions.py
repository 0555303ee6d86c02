"""Completions as tokens: sampled with a seed each and kept across kills, and what a model makes of them token by token."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import LogitsProcessorList, PreTrainedTokenizerBase

from training.recipes._data import Row
from training.recipes._runlog import RunLog
from training.sampling.backends import GenerationRequest
from training.sampling.transformers_backend import SeededSampling, end_token_ids

Ids = list[int]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> Ids:
    """A prompt in the chat template, up to where the assistant begins."""
    return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"])


@torch.no_grad()
def sample_ids(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Ids],
    requests: Sequence[GenerationRequest],
) -> list[tuple[Ids, bool]]:
    """Of each prompt a completion's tokens, its end token among them, and whether it ended by itself.

    Each has the random numbers of its request alone; the global ones are not touched. The model's mode is kept.
    """
    was_training = model.training
    model.eval()
    longest = max(len(ids) for ids in prompts)
    pad = tokenizer.pad_token_id
    input_ids = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in prompts], device=model.device)
    mask = torch.tensor([[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts], device=model.device)
    output = model.generate(
        input_ids=input_ids,
        attention_mask=mask,
        max_new_tokens=requests[0].max_new_tokens,
        do_sample=False,
        logits_processor=LogitsProcessorList([SeededSampling(requests)]),
        pad_token_id=pad,
    )
    model.train(was_training)
    ends = end_token_ids(model, tokenizer)
    found = []
    for ids in output[:, longest:].tolist():
        end = next((place for place, token in enumerate(ids) if token in ends), None)
        found.append((ids, False) if end is None else (ids[: end + 1], True))
    return found


def sample_all(
    path: Path,
    wanted: Sequence[Any],
    sample_batch: Callable[[Sequence[Any]], list[Row]],
    *,
    batch_size: int,
    run_log: RunLog,
    is_alone: bool = True,
) -> list[Row]:
    """A row for each of `wanted`, in order, written to `path` batch by batch.

    After a kill it goes on with the first batch that is not whole, so that no completion ever has other neighbours than
    in a run that was not interrupted: these tip last bits, and now and then a token. Raises Stopped between batches,
    unless other processes wait for this one, with which it would have to agree on that.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith(b"\n")]
    whole = whole[: len(whole) if len(whole) == len(wanted) else len(whole) // batch_size * batch_size]
    rows = [json.loads(line) for line in whole]
    if len(rows) == len(wanted):
        return rows
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(sum(map(len, whole)))
        file.seek(0, 2)
        for start in range(len(rows), len(wanted), batch_size):
            run_log.progress(start, len(wanted), "completions")
            if is_alone:
                run_log.raise_if_stopped()
            found = sample_batch(wanted[start : start + batch_size])
            file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode())
            file.flush()
            rows += found
    run_log.progress(len(rows), len(wanted), "completions")
    return rows


def completion_logits(
    model: torch.nn.Module, prompts: Sequence[Ids], completions: Sequence[Ids], *, pad: int
) -> torch.Tensor:
    """Logits before each token of the completions, shape (rows, longest completion, vocabulary), in the model's type.

    Row by row those of `completion_mask` count; what stands elsewhere means nothing. Prompts are padded on the left and
    completions on the right, so that two models that read other prompts are compared place by place.
    """
    before, after = max(len(ids) for ids in prompts), max(len(ids) for ids in completions)
    input_ids, mask = [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        left, right = before - len(prompt), after - len(completion)
        input_ids.append([pad] * left + prompt + completion + [pad] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
    attention = torch.tensor(mask, device=model.device)
    output = model(
        input_ids=torch.tensor(input_ids, device=model.device),
        attention_mask=attention,
        position_ids=(attention.cumsum(dim=1) - 1).clamp(min=0),
        use_cache=False,
        logits_to_keep=after + 1,
    )
    return output.logits[:, :-1]


def completion_mask(completions: Sequence[Ids], *, device: torch.device) -> torch.Tensor:
    """1 where a row has a token, 0 behind its end, shape (rows, longest completion)."""
    longest = max(len(ids) for ids in completions)
    return torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in completions], device=device)


def token_log_probs(logits: torch.Tensor, completions: Sequence[Ids]) -> torch.Tensor:
    """Log-probability of each token in nats, shape (rows, longest completion), 0 behind a row's end."""
    mask = completion_mask(completions, device=logits.device)
    tokens = torch.tensor([[*ids, *[0] * (mask.shape[1] - len(ids))] for ids in completions], device=logits.device)
    found = logits.float().log_softmax(dim=-1).gather(2, tokens[:, :, None]).squeeze(2)
    return found.masked_fill(mask == 0, 0.0)


def divergence(
    student: torch.Tensor, teacher: torch.Tensor, mask: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """Generalised Jensen-Shannon divergence at each place in nats, shape (rows, tokens), 0 where `mask` is.

    `student` and `teacher` are logits of shape (rows, tokens, vocabulary). `beta` 0 is KL(teacher || student), 1 is
    KL(student || teacher); between them equation 1 of Agarwal et al. 2024 (arXiv:2306.13649), with the mixture
    beta * teacher + (1 - beta) * student.
    """
    p, q = teacher.float().log_softmax(dim=-1), student.float().log_softmax(dim=-1)
    if beta == 0:
        found = (p.exp() * (p - q)).sum(dim=-1)
    elif beta == 1:
        found = (q.exp() * (q - p)).sum(dim=-1)
    else:
        weights = torch.tensor([beta, 1 - beta], device=p.device).log()
        mixture = torch.logaddexp(p + weights[0], q + weights[1])
        found = beta * (p.exp() * (p - mixture)).sum(dim=-1) + (1 - beta) * (q.exp() * (q - mixture)).sum(dim=-1)
    return found.masked_fill(mask == 0, 0.0)
