"""Which device a model works on, and in which type it multiplies there.

In:  the words of settings.  Out: a torch device that exists, or the reason why not; a type that the device is quick in.
"""

import torch

from codeweft.base.errors import UserError


def choose_device(wanted: str, setting: str = "device") -> torch.device:
    """`auto` is the GPU where torch finds one, else the CPU; any other word is taken literally."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise UserError(f"{setting}: there is no device {wanted!r}.", "Use cpu, cuda, cuda:1 or auto.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{setting} = {wanted}, but torch finds no GPU.", "Use cpu or auto, or mend the driver.")
    return device


def choose_precision(wanted: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device multiplies it in hardware, else float32; other words are taken literally.

    A processor without such instructions needs many times as long for bfloat16 as for float32.
    """
    if wanted == "auto":
        return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for products of bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # older releases cannot tell
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
