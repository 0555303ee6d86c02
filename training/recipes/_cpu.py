"""What makes TRL quicker on a CPU, and changes nothing of what it computes.

Leans on two things of TRL 1.16, held by `tests/contract/test_cpu_head.py`: `trl.trainer.utils._use_triton` is asked by the
fused head whether to score the labelled positions only, and by nothing else in that module; and a head that is told so
works with PyTorch's own tiles.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear
from trl.trainer import utils

_ask_for_triton = utils._use_triton


def score_labelled_positions_only() -> None:
    """Let TRL's fused head compute what the loss needs and no more, also on a CPU: not the prompts, not the padding.

    TRL does so on GPUs alone, since compilers of other devices would have to begin anew with every shape. A CPU has none.
    Asked before a trainer is made or after; for the whole process.
    """
    utils._use_triton = lambda device: device.type == "cpu" or _ask_for_triton(device)


@contextmanager
def adapters_in_base_type(model: torch.nn.Module) -> Iterator[None]:
    """While it is open, LoRA's two products are made in the type of the base's weights, where that is bfloat16 or float16.

    For generating: one token at a time, converting to float32 and back takes longer than the products. What comes out is
    rounded to the base's type either way. Layers that are not plain LoRA (DoRA, several adapters, merged or sharded
    weights) stay as they are.
    """
    quick = [module for module in model.modules() if _is_plain(module)]
    for module in quick:
        module.forward = _forward_in_base_type(module)
    try:
        yield
    finally:
        for module in quick:
            del module.forward


def _is_plain(module: torch.nn.Module) -> bool:
    if type(module) is not LoraLinear or type(module.base_layer) is not torch.nn.Linear:
        return False
    weight, adapters = module.base_layer.weight, module.active_adapters
    return (
        weight.dtype in (torch.bfloat16, torch.float16)
        and not isinstance(weight, DTensor)
        and weight.shape == (module.out_features, module.in_features)
        and len(adapters) == 1
        and adapters[0] in module.lora_A
        and not module.merged
        and not module.disable_adapters
        and not module.lora_variant
        and not module.lora_bias.get(adapters[0], False)
        and type(module.lora_dropout[adapters[0]]) is torch.nn.Identity
    )


def _forward_in_base_type(module: LoraLinear) -> Callable[..., torch.Tensor]:
    base, name = module.base_layer, module.active_adapters[0]
    down = module.lora_A[name].weight.detach().to(base.weight.dtype)
    up = (module.lora_B[name].weight.detach() * module.scaling[name]).to(base.weight.dtype)

    def forward(x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return base(x) + linear(linear(x.to(down.dtype), down), up)

    return forward


class QuickRollouts:
    """To put before GRPOTrainer or RLOOTrainer: rollouts are generated with `adapters_in_base_type`.

    Leans on `_generate` of TRL 1.16. Log-probabilities are computed afterwards as in training, never taken from here.
    """

    def _generate(self, *args: object, **kwargs: object) -> Any:
        with adapters_in_base_type(self.accelerator.unwrap_model(self.model)):
            return super()._generate(*args, **kwargs)
