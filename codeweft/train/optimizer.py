"""AdamW over float32 masters of a model whose own weights may be bfloat16.

In:  a model, its gradients.  Out: updated masters, and the model's weights as their rounding.
Source: DeepSeek-Coder-V2 §3.3 (AdamW 0.9/0.95, decay 0.1), DeepSeek-V2 §3.1.2 (clipping at norm 1),
DeepSeek LLM §2.4 (gradients accumulate in float32).
"""

import torch
from torch import Tensor, nn

from codeweft.train.config import OptimizerConfig


class MasterAdamW:
    """Keeps one float32 master a weight; matrices are decayed, vectors are not."""

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self.config = config
        self.names = [name for name, _ in model.named_parameters()]
        self.weights: list[Tensor] = [weight for _, weight in model.named_parameters()]
        self.masters = [weight.detach().float().clone() for weight in self.weights]
        decayed = [master for master in self.masters if master.ndim >= 2]
        plain = [master for master in self.masters if master.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)

    def accumulate(self) -> None:
        """Move the model's gradients into the masters' float32 ones and free them."""
        for weight, master in zip(self.weights, self.masters, strict=True):
            if weight.grad is None:
                continue
            if master.grad is None:
                master.grad = weight.grad.float()
            else:
                master.grad += weight.grad
            weight.grad = None

    def step(self, learning_rate: float) -> float:
        """Clip, update, round into the model; returns the gradient's norm before clipping.

        A norm that is not finite changes nothing: the caller decides what it means.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.masters, self.config.clip, foreach=True)
        size = float(norm)
        if size == size and size != float("inf"):
            for group in self.adam.param_groups:
                group["lr"] = learning_rate
            self.adam.step()
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.masters)
        for master in self.masters:
            master.grad = None
        return size

    def state(self) -> dict[str, Tensor]:
        """Masters, moments and step counts by name, for a checkpoint."""
        tensors = {}
        for name, master in zip(self.names, self.masters, strict=True):
            tensors[f"master/{name}"] = master
            for key, value in self.adam.state[master].items():
                tensors[f"{key}/{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave, and round the masters into the model."""
        with torch.no_grad():
            for name, weight, master in zip(self.names, self.weights, self.masters, strict=True):
                master.copy_(tensors[f"master/{name}"])
                keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in tensors]
                # fused AdamW wants its step count on the weight's own device
                self.adam.state[master] = {key: tensors[f"{key}/{name}"].to(master.device) for key in keys}
                weight.copy_(master)
