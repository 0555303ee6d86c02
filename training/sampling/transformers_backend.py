"""Batched sampling with transformers, one seed per completion."""

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence

import numpy
import torch
from transformers import (
    AutoModelForCausalLM,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from training.sampling.backends import Generation, GenerationRequest
from training.sampling.device import bfloat16_is_fast, pick_device
from training.sampling.heads import keep_head_input_contiguous
from training.sampling.model_files import check_adapter
from training.sampling.tokenizing import load_tokenizer

# The nucleus nearly always fits in this many tokens; sorting the whole vocabulary costs a third of the speed.
NUCLEUS_CANDIDATES = 512


class SeededSampling(LogitsProcessor):
    """Choose each row's next token by that row's own random numbers.

    `generate` samples a batch from one global generator, so a completion would depend on its neighbours.
    Here every row draws one uniform number per token from its own seed, and the chosen token is passed on
    as the only possible one: run `generate` with `do_sample=False`.
    """

    def __init__(self, requests: Sequence[GenerationRequest]) -> None:
        self.requests = list(requests)
        self.generators = [numpy.random.Generator(numpy.random.Philox(key=request.seed)) for request in requests]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """`scores` are logits of shape (rows, vocabulary); the result has one finite entry per row."""
        chosen = torch.empty(len(self.requests), dtype=torch.long, device=scores.device)
        # Rows that share settings are handled in one go, which in practice is all of them.
        settings: dict[tuple[float, float], list[int]] = {}
        for row, request in enumerate(self.requests):
            settings.setdefault((request.temperature, request.top_p), []).append(row)
        for (temperature, top_p), rows in settings.items():
            logits = scores[rows].float()
            if temperature == 0:
                chosen[rows] = logits.argmax(dim=-1)
            else:
                uniform = torch.tensor([self.generators[row].random() for row in rows], device=scores.device)
                chosen[rows] = sample_nucleus((logits / temperature).softmax(dim=-1), top_p, uniform)
        only_chosen = torch.full_like(scores, -torch.inf)
        return only_chosen.scatter(1, chosen[:, None], 0.0)


def sample_nucleus(probabilities: torch.Tensor, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    """Draw from the smallest set of tokens whose probability reaches `top_p` (Holtzman et al. 2019).

    `probabilities` has shape (rows, vocabulary) and sums to 1 per row; `uniform` has shape (rows,), in
    [0, 1). Returns token ids of shape (rows,). Equal inputs give equal tokens: no hidden random state.
    """
    vocabulary = probabilities.shape[-1]
    candidates = vocabulary if top_p >= 1 else min(NUCLEUS_CANDIDATES, vocabulary)
    values, tokens = probabilities.topk(candidates, dim=-1)
    cumulative = values.cumsum(dim=-1, dtype=torch.float64)
    if candidates < vocabulary and bool((cumulative[:, -1] < top_p).any()):
        values, tokens = probabilities.sort(dim=-1, descending=True)
        cumulative = values.cumsum(dim=-1, dtype=torch.float64)
    # The nucleus ends with the first token at which the cumulative probability reaches top_p.
    outside = cumulative - values.double() >= top_p
    mass = values.double().masked_fill(outside, 0.0).sum(dim=-1)
    position = torch.searchsorted(cumulative, (uniform.double() * mass)[:, None], right=True)
    last_inside = (~outside).sum(dim=-1, keepdim=True) - 1
    return tokens.gather(1, torch.minimum(position, last_inside)).squeeze(1)


class TransformersBackend:
    """Samples from one model folder, with a LoRA adapter merged in memory where one is given.

    Prompts are sorted by length, padded on the left and generated `batch_size` at a time. On a CPU with
    native bfloat16 that type makes sampling about twice as fast.

    What a seed promises: the same request gives the same completion whatever else is in its batch, as far
    as the arithmetic does. Another batch size or padding changes the last bits of the logits (more so in
    bfloat16), which now and then tips a token, and the text goes another way from there. With the same
    model, batches, thread count and machine, runs are equal to the letter.
    """

    def __init__(
        self,
        model: str,
        adapter: str | None = None,
        *,
        batch_size: int = 32,
        bfloat16: bool | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.device = pick_device()
        use_bfloat16 = bfloat16_is_fast() if bfloat16 is None else bfloat16
        self.model, self.tokenizer = load_policy(
            model, adapter, dtype=torch.bfloat16 if use_bfloat16 else torch.float32
        )
        keep_head_input_contiguous(self.model)
        self.model.to(self.device).eval()
        self.policy: str | None = None  # which of the adapters on a shared base; empty: none of them

    @classmethod
    def of_policies(
        cls,
        model: str,
        adapters: Mapping[str, str | None],
        *,
        batch_size: int = 32,
        bfloat16: bool | None = None,
    ) -> dict[str, "TransformersBackend"]:
        """A backend for each of several policies that hold one base model in memory between them.

        `adapters` maps a name of the caller's to an adapter's folder, or to None for the base itself. The adapters
        stay beside the base's weights instead of being merged, so a completion differs from a merged policy's where
        the last bits tip a token. One thread samples at a time; which policy is whose is chosen batch by batch.
        """
        first = cls(model, batch_size=batch_size, bfloat16=bfloat16)
        shared = first.model
        names: dict[str, str] = {}
        from peft import PeftModel  # takes a second, and most sampling needs no adapter

        for folder in dict.fromkeys(folder for folder in adapters.values() if folder is not None):
            names[folder] = f"adapter{len(names)}"
            if isinstance(shared, PeftModel):
                shared.load_adapter(check_adapter(folder), adapter_name=names[folder])
            else:
                shared = PeftModel.from_pretrained(shared, check_adapter(folder), adapter_name=names[folder])
        shared.eval()
        backends = {}
        for name, folder in adapters.items():
            backends[name] = copy.copy(first)
            backends[name].model = shared
            if names:
                backends[name].policy = "" if folder is None else names[folder]
        return backends

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Generation]:
        """Yield the results batch by batch, shortest prompts first."""
        encoded = [
            self.tokenizer.apply_chat_template(list(request.messages), add_generation_prompt=True, return_dict=True)[
                "input_ids"
            ]
            for request in requests
        ]
        order = sorted(range(len(requests)), key=lambda index: (len(encoded[index]), index))
        for start in range(0, len(order), self.batch_size):
            indices = order[start : start + self.batch_size]
            yield from self._generate_batch(
                [requests[index] for index in indices], [encoded[index] for index in indices]
            )

    @torch.inference_mode()
    def _generate_batch(self, requests: list[GenerationRequest], encoded: list[list[int]]) -> Iterator[Generation]:
        longest = max(len(ids) for ids in encoded)
        room = getattr(self.model.config, "max_position_embeddings", None) or 2**31
        max_new_tokens = max(request.max_new_tokens for request in requests)
        if longest + max_new_tokens > room:
            raise ValueError(
                f"A prompt of {longest} tokens and {max_new_tokens} new ones exceed the model's {room} positions"
            )
        pad = self.tokenizer.pad_token_id
        input_ids = torch.tensor([[pad] * (longest - len(ids)) + ids for ids in encoded], device=self.device)
        attention_mask = torch.tensor(
            [[0] * (longest - len(ids)) + [1] * len(ids) for ids in encoded], device=self.device
        )
        with self._as_policy():
            output = self.model.generate(
                input_ids=input_ids,
                attention_mask=attention_mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                logits_processor=LogitsProcessorList([SeededSampling(requests)]),
                pad_token_id=pad,
            )
        ends = end_token_ids(self.model, self.tokenizer)
        for request, ids in zip(requests, output[:, longest:].tolist(), strict=True):
            ids = ids[: request.max_new_tokens]
            end = next((position for position, token in enumerate(ids) if token in ends), None)
            text = self.tokenizer.decode(ids[:end], skip_special_tokens=True)
            yield Generation(
                key=request.key,
                content=text.strip(),
                n_tokens=len(ids) if end is None else end,
                finished=end is not None,
            )


    def _as_policy(self) -> contextlib.AbstractContextManager:
        """While it is open, a shared base answers as this backend's policy."""
        if self.policy is None:
            return contextlib.nullcontext()
        if not self.policy:
            return self.model.disable_adapter()
        self.model.set_adapter(self.policy, inference_mode=True)
        return contextlib.nullcontext()


def load_policy(
    model: str, adapter: str | None = None, *, dtype: torch.dtype = torch.float32
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer; merge `adapter` into its weights in float32 first."""
    tokenizer = load_tokenizer(model)
    if adapter is None:
        return AutoModelForCausalLM.from_pretrained(model, dtype=dtype), tokenizer
    from peft import PeftModel  # takes a second, and most sampling needs no adapter

    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    policy = PeftModel.from_pretrained(policy, check_adapter(adapter)).merge_and_unload(safe_merge=True)
    return policy.to(dtype), tokenizer


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """The tokens that end a completion, from the generation config and the tokenizer."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return {token for token in (*ids, tokenizer.eos_token_id) if token is not None}
