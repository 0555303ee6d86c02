"""Every hidden layer of a base model pooled over completions, in one forward pass: to measure which of them says most."""

from collections.abc import Sequence

import numpy
import torch
from transformers import AutoModel, AutoTokenizer

from training.sampling.device import bfloat16_is_fast, pick_device
from training.sampling.embedding_cache import POOLINGS, Text
from training.sampling.embeddings import Embedder


class AllLayers:
    """Turns a prompt and its completion into the vectors of every layer and pooling, flat: a reshape makes
    (layers, poolings, hidden size) of one, layers from 1 and poolings as in POOLINGS."""

    def __init__(self, model: str, *, max_length: int, batch_size: int, model_hash: str) -> None:
        self.embedder = Embedder(model, layer=1, max_length=max_length, batch_size=batch_size, model_hash=model_hash)
        self.device = pick_device()
        dtype = torch.bfloat16 if bfloat16_is_fast() else torch.float32
        body = AutoModel.from_pretrained(self.embedder.name, dtype=dtype).to(self.device).eval()
        self.embedder.attach(body, AutoTokenizer.from_pretrained(self.embedder.name), self.device)
        self.n_layers, self.body = len(body.layers), body
        self._places: list[tuple[int, int]] = []
        self._pooled = numpy.zeros(0)
        for number, layer in enumerate(body.layers):
            layer.register_forward_hook(lambda module, inputs, output, number=number: self._keep(number, output))

    def _keep(self, number: int, output: object) -> None:
        states = output[0] if isinstance(output, tuple) else output
        for row, (start, end) in enumerate(self._places):
            hidden = states[row, start:end].float()
            self._pooled[row, number] = torch.stack([hidden.mean(dim=0), hidden[-1]]).cpu().numpy()

    @torch.inference_mode()
    def encode(self, texts: Sequence[Text]) -> numpy.ndarray:
        """One batch, float32 of shape (texts, layers * poolings * hidden size)."""
        encoded = [self.embedder.tokenize(*text) for text in texts]
        width = max(len(ids) for ids, _ in encoded)
        ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in encoded], device=self.device)
        mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in encoded], device=self.device)
        self._places = [(len(ids) - n_completion, len(ids)) for ids, n_completion in encoded]
        size = self.body.config.get_text_config().hidden_size
        self._pooled = numpy.zeros((len(texts), self.n_layers, len(POOLINGS), size), dtype=numpy.float32)
        self.body(input_ids=ids, attention_mask=mask, use_cache=False)
        return self._pooled.reshape(len(texts), -1)
