"""The output head of a language model while it generates."""

from typing import Any

import torch


def keep_head_input_contiguous(model: torch.nn.Module) -> None:
    """Give the head of a causal language model the last hidden states as one block of memory.

    `generate` asks for the logits of the last token only, a slice with gaps between the rows. For such a slice PyTorch's
    `linear` copies the head's weight once for every row of the batch: 57 MB a row for a vocabulary of 49,152 at width 576.
    """

    def contiguous(module: torch.nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden, *others = arguments
        return hidden.contiguous(), *others

    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(contiguous)
