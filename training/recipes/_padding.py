"""Batches without their padding, on a CPU, where a padded token costs as much as any other.

A batch of pairs holds long completions beside short ones, and all are padded to the longest. Here the body of the model
reads its rows in parts of about the same length, each as wide as its own longest row: the same hidden states, from fewer
tokens. On SmolLM2 and pairs of 44 to 189 tokens a step takes six tenths of the time.
"""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

MORE = ("output_hidden_states", "output_attentions", "output_router_logits")
A_PART = 128  # tokens whose computation costs about as much as one more call of the model


class SparesPadding:
    """To put before a trainer: policy and reference, or the reward model, read batches in parts of equal length."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for model in (self.model, getattr(self, "ref_model", None)):
            if model is not None:
                spare_padding(model)


def spare_padding(model: torch.nn.Module) -> None:
    """Have the body of a decoder read right-padded batches in parts, as long as `model` lives.

    What it can't read so it reads as before: with a cache, from embeddings, padded on the left, on a GPU, with more asked
    for than the last hidden states.
    """
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not isinstance(whole, PreTrainedModel):
        return
    body = whole.base_model
    if body is whole or getattr(body.config, "is_encoder_decoder", False) or getattr(body.config, "output_router_logits", False):
        return
    forward = body.forward

    def read(
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **others: Any,
    ) -> Any:
        given = {
            "input_ids": input_ids, "attention_mask": attention_mask, "position_ids": position_ids,
            "past_key_values": past_key_values, "use_cache": use_cache, **others,
        }  # fmt: skip
        widths = None
        if past_key_values is None and others.get("inputs_embeds") is None and not any([use_cache, *map(others.get, MORE)]):
            widths = row_lengths(input_ids, attention_mask, position_ids)
        parts = parts_of(widths) if widths else []
        if len(parts) < 2 and (not widths or max(widths) == input_ids.shape[1]):
            return forward(**given)
        found, width = [], input_ids.shape[1]
        for rows in parts:
            wide = max(widths[row] for row in rows)
            own = {"input_ids": input_ids[rows, :wide], "attention_mask": attention_mask[rows, :wide], "use_cache": False}
            if position_ids is not None:
                own["position_ids"] = position_ids[rows, :wide]
            hidden = forward(**others, **own).last_hidden_state
            found.append(torch.nn.functional.pad(hidden, (0, 0, 0, width - wide)))
        order = torch.tensor([row for rows in parts for row in rows]).argsort()
        return BaseModelOutputWithPast(last_hidden_state=torch.cat(found)[order])

    body.forward = read


def row_lengths(
    input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None, position_ids: torch.Tensor | None
) -> list[int] | None:
    """Tokens of each row of a right-padded batch on a CPU; None of any other."""
    if input_ids is None or attention_mask is None or input_ids.device.type != "cpu" or attention_mask.shape != input_ids.shape:
        return None
    if position_ids is not None and position_ids.shape != input_ids.shape:
        return None
    lengths = attention_mask.long().sum(dim=1)
    places = torch.arange(input_ids.shape[1])
    if not torch.equal(attention_mask.bool(), places < lengths[:, None]) or not bool(lengths.min()):
        return None
    return lengths.tolist()


def parts_of(lengths: Sequence[int], *, a_part: int = A_PART) -> list[list[int]]:
    """Rows by ascending length, divided so that tokens, padding included, and `a_part` for each part are fewest together."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    cost, begins = [0] * (len(order) + 1), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        longest = lengths[order[end - 1]]
        cost[end], begins[end] = min((cost[begin] + (end - begin) * longest + a_part, begin) for begin in range(end))
    parts, end = [], len(order)
    while end:
        parts.append(order[begins[end] : end])
        end = begins[end]
    return parts[::-1]
