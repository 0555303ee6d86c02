"""Embeddings of completions from a frozen language model."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

import numpy
import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

from training.sampling.backends import Message
from training.sampling.device import bfloat16_is_fast, pick_device
from training.sampling.embedding_cache import POOLINGS, EmbeddingCache, Text
from training.sampling.model_files import check_model, hash_model


class Embedder:
    """Turns a prompt and its completion into one vector: a hidden layer, pooled over the completion's tokens.

    `layer` counts from 1; without one it is two thirds up (20 of 30), which predicts human preferences better
    than the last layer does. `pooling` is `mean` over the completion's tokens or its `last` token. Layers
    above `layer` are not computed. Long texts lose the start of their prompt, then the end of their
    completion, to fit `max_length` tokens. The model is loaded at the first text that is not in the cache.
    `model_hash` is that of the model, if it is known. `n_computed` texts of `n_tokens` tokens went through it so far.
    """

    def __init__(
        self,
        model: str,
        *,
        layer: int | None = None,
        pooling: str = "mean",
        batch_size: int = 16,
        max_length: int = 1024,
        cache: EmbeddingCache | None = None,
        model_hash: str | None = None,
    ) -> None:
        if pooling not in POOLINGS:
            raise ValueError(f"pooling is {pooling!r}, it must be one of {', '.join(POOLINGS)}")
        self.name = check_model(model)
        self.pooling = pooling
        self.batch_size = batch_size
        self.max_length = max_length
        self.cache = cache
        self.layer = layer if layer is not None else self._default_layer()
        self.bfloat16 = bfloat16_is_fast()
        self.model_hash = model_hash or (cache.hash_of(self.name) if cache else hash_model(self.name))
        self.n_computed = self.n_tokens = 0
        self._model: torch.nn.Module | None = None

    def _default_layer(self) -> int:
        from transformers import AutoConfig

        return max(1, round(AutoConfig.from_pretrained(self.name).num_hidden_layers * 2 / 3))

    def key(self, prompt: Sequence[Message], completion: str) -> bytes:
        """What the cache knows a text by: everything its vector depends on."""
        messages = [[message["role"], message["content"]] for message in prompt]
        parts = [
            self.model_hash,
            self.layer,
            self.pooling,
            self.max_length,
            self.bfloat16,
            messages,
            completion,
        ]
        return hashlib.sha256(json.dumps(parts).encode()).digest()

    def encode(self, texts: Sequence[Text], on_progress: Callable[[int, int], None] | None = None) -> numpy.ndarray:
        """Vectors of shape (texts, hidden size), float32, in the order given.

        `on_progress` gets (done, total) of the texts that are not in the cache, after each batch; what it
        raises ends the work, and the batches so far are kept.
        """
        keys = [self.key(*text) for text in texts]
        vectors = self.cache.get(keys) if self.cache else {}
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if missing:
            if on_progress:
                on_progress(0, len(missing))
            self._load()
            encoded = {key: self.tokenize(*text) for key, text in missing.items()}
            order = sorted(encoded, key=lambda key: len(encoded[key][0]), reverse=True)
            for start in range(0, len(order), self.batch_size):
                batch = order[start : start + self.batch_size]
                computed = dict(zip(batch, self._encode_batch([encoded[key] for key in batch]), strict=True))
                vectors |= computed
                self.n_computed += len(batch)
                self.n_tokens += sum(len(encoded[key][0]) for key in batch)
                if self.cache:
                    self.cache.put(computed)
                if on_progress:
                    on_progress(start + len(batch), len(missing))
        return numpy.stack([vectors[key] for key in keys]) if keys else numpy.zeros((0, 0), dtype="float32")

    def _load(self) -> None:
        if self._model is not None:
            return
        device = pick_device()
        dtype = torch.bfloat16 if self.bfloat16 else torch.float32
        model = AutoModel.from_pretrained(self.name, dtype=dtype).to(device).eval()
        self.attach(model, AutoTokenizer.from_pretrained(self.name), device)
        model.layers = model.layers[: self.layer]

    def attach(self, model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        """Read the hidden states of a base model that is in memory already, instead of loading one.

        `model` has `layers`. Raises ValueError where there is no such layer.
        """
        if not 1 <= self.layer <= len(model.layers):
            raise ValueError(f"layer is {self.layer}, but {self.name} has layers 1 to {len(model.layers)}")
        self.device, self.tokenizer = device, tokenizer
        self._hidden: torch.Tensor | None = None

        def keep(module: torch.nn.Module, inputs: object, output: object) -> None:
            self._hidden = output[0] if isinstance(output, tuple) else output

        # The hook sees the layer's own output; what the model returns has been through the final norm.
        model.layers[self.layer - 1].register_forward_hook(keep)
        self._model = model

    def tokenize(self, prompt: Sequence[Message], completion: str) -> tuple[list[int], int]:
        """Token ids of both, and how many at the end belong to the completion (at least one)."""
        prompt_ids = self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
        completion_ids = self.tokenizer(completion, add_special_tokens=False)["input_ids"]
        completion_ids = (completion_ids or [self.tokenizer.eos_token_id])[: self.max_length]
        room = self.max_length - len(completion_ids)
        return (prompt_ids[-room:] if room else []) + completion_ids, len(completion_ids)

    def hidden(self, input_ids: torch.Tensor | None = None, **inputs: torch.Tensor) -> torch.Tensor:
        """States of the layer, (texts, tokens, hidden size), of the attached model's inputs; gradients can flow back."""
        self._model(input_ids=input_ids, use_cache=False, **inputs)
        return self._hidden

    @torch.inference_mode()
    def _encode_batch(self, batch: list[tuple[list[int], int]]) -> Iterator[numpy.ndarray]:
        longest = max(len(ids) for ids, _ in batch)
        # Padding on the right is never seen by the tokens before it; its id only has to exist.
        input_ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch], device=self.device)
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids, _ in batch], device=self.device)
        states = self.hidden(input_ids, attention_mask=mask)
        for row, (ids, n_completion) in enumerate(batch):
            hidden = states[row, len(ids) - n_completion : len(ids)].float()
            pooled = hidden.mean(dim=0) if self.pooling == "mean" else hidden[-1]
            yield pooled.cpu().numpy()
