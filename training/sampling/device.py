"""Which device a model runs on, and whether bfloat16 pays there."""

import torch


def pick_device() -> torch.device:
    """The accelerator of this process (CUDA, ROCm, XPU, MPS, ...), or the CPU where there is none."""
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator()
    return torch.device("cpu")


def has_accelerator() -> bool:
    """Whether anything faster than the CPU is here."""
    return torch.accelerator.is_available()


def bfloat16_is_fast() -> bool:
    """Whether bfloat16 arithmetic is native here.

    On a CPU without AVX-512 BF16 or AMX it is emulated and slower than float32.
    """
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if torch.accelerator.is_available():
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16"))
