"""Which device a model works on.

In:  the word of a setting.  Out: a torch device that exists, or the reason why not.
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
