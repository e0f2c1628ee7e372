"""AdamW, or Muon beside it, over float32 masters of a model whose own weights may be bfloat16.

In:  a model, its gradients.  Out: updated masters, and the model's weights as their rounding.
Source: DeepSeek-Coder-V2 §3.3 (AdamW 0.9/0.95, decay 0.1), DeepSeek-V2 §3.1.2 (clipping at norm 1),
DeepSeek LLM §2.4 (gradients accumulate in float32); Jordan et al. 2024, kellerjordan.github.io/posts/muon (Muon);
Liu et al. 2025, arXiv 2502.16982 ("Moonlight": the size of Muon's steps and its decay).
Unusual: Muon is our own. torch.optim.Muon takes matrices alone, not stacks of experts, and always multiplies in
bfloat16, slow on processors without instructions for it; here whole stacks at once, in the type the model computes in.
"""

import torch
from torch import Tensor, nn

from codeweft.base.processes import Together
from codeweft.train.config import OptimizerConfig

QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at 0, so that five rounds lift even small singular values to about 1
ROUNDS = 5
SMALLEST_NORM = 1e-7  # a matrix whose norm is below it is as good as zero, and stays so
TOGETHER = 4  # matrices multiplied at once: few enough to stay in the processor's cache through all rounds
RMS = 0.2  # of an entry's step at rate 1, which is what AdamW's steps come to (Moonlight §2.2)
NOT_HIDDEN = ("embed_tokens.weight", "lm_head.weight", "score.weight", "mlp.gate.weight")  # tables, and one score


class MasterOptimizer:
    """Keeps one float32 master of each weight that is trained; matrices are decayed, vectors are not.

    With `kind = "muon"` the hidden matrices are Muon's; AdamW keeps embedding, head, router and vectors.
    """

    def __init__(self, model: nn.Module, config: OptimizerConfig) -> None:
        self.config = config
        trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
        self.names = [name for name, _ in trained]
        self.weights: list[Tensor] = [weight for _, weight in trained]
        self.masters = [weight.detach().float().clone() for weight in self.weights]
        hidden = {
            name: master
            for name, master in zip(self.names, self.masters, strict=True)
            if config.kind == "muon" and is_hidden(name, master)
        }
        types = {weight.dtype for weight in self.weights}
        others = [master for name, master in zip(self.names, self.masters, strict=True) if name not in hidden]
        decayed = [master for master in others if master.ndim >= 2]
        plain = [master for master in others if master.ndim < 2]
        groups = [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": plain, "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True)
        self.muon = Muon(hidden, config, torch.bfloat16 if types == {torch.bfloat16} else torch.float32)

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

    def sum_over(self, together: Together) -> None:
        """Make the gradients those of all processes together; one that had no batch takes part with zeros.

        A weight that has none in any process is left without, as in one process: it would be decayed otherwise.
        """
        if together.size == 1:
            return
        known = torch.tensor([float(master.grad is not None) for master in self.masters])
        together.sum_([known])
        for master, processes in zip(self.masters, known.tolist(), strict=True):
            if processes and master.grad is None:
                master.grad = torch.zeros_like(master)
        together.sum_([master.grad for master in self.masters if master.grad is not None])

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
            self.muon.step(learning_rate)
            with torch.no_grad():
                torch._foreach_copy_(self.weights, self.masters)
        for master in self.masters:
            master.grad = None
        return size

    def state(self) -> dict[str, Tensor]:
        """Masters, moments, momenta and step counts by name, for a checkpoint."""
        tensors = {}
        for name, master in zip(self.names, self.masters, strict=True):
            tensors[f"master/{name}"] = master
            for key, value in self.adam.state[master].items():
                tensors[f"{key}/{name}"] = value
        return tensors | {f"momentum/{name}": momentum for name, momentum in self.muon.momenta.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take back what `state` gave, and round the masters into the model."""
        with torch.no_grad():
            for name, weight, master in zip(self.names, self.weights, self.masters, strict=True):
                master.copy_(tensors[f"master/{name}"])
                keys = [key for key in ("step", "exp_avg", "exp_avg_sq") if f"{key}/{name}" in tensors]
                # fused AdamW wants its step count on the weight's own device
                self.adam.state[master] = {key: tensors[f"{key}/{name}"].to(master.device) for key in keys}
                weight.copy_(master)
            for name, momentum in self.muon.momenta.items():
                momentum.copy_(tensors[f"momentum/{name}"])


class Muon:
    """Momentum whose every matrix is made orthogonal before it is stepped along.

    A step is as large in each direction of a matrix's space, however rarely the gradient points there. `dtype` is that
    of the products; all else is float32.
    """

    def __init__(self, masters: dict[str, Tensor], config: OptimizerConfig, dtype: torch.dtype = torch.float32) -> None:
        self.config, self.dtype = config, dtype
        self.masters = masters
        self.momenta = {name: torch.zeros_like(master) for name, master in masters.items()}

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Decay, then step; weights without a gradient stay as they are."""
        rate = learning_rate * self.config.matrix_rate
        alike: dict[tuple[int, int], list[tuple[Tensor, Tensor, Tensor]]] = {}
        for name, master in self.masters.items():
            if master.grad is None:
                continue
            momentum = self.momenta[name]
            momentum.mul_(self.config.momentum).add_(master.grad)
            master.mul_(1 - rate * self.config.weight_decay)
            weights, grad, summed = (lying(matrices(name, tensor)) for tensor in (master, master.grad, momentum))
            alike.setdefault((weights.shape[1], weights.shape[2]), []).append((weights, grad, summed))
        for (_, columns), group in alike.items():
            # Nesterov: as if this gradient were to come once more
            ahead = torch.cat([torch.add(grad, summed, alpha=self.config.momentum) for _, grad, summed in group])
            directions = orthogonal(ahead, self.dtype).split([len(weights) for weights, _, _ in group])
            for (weights, _, _), direction in zip(group, directions, strict=True):
                weights.add_(direction, alpha=-rate * RMS * columns**0.5)  # columns: the longer side


def is_hidden(name: str, weight: Tensor) -> bool:
    """Whether Muon takes this weight: a matrix, or a stack of them, that maps features to features.

    >>> is_hidden("model.layers.1.mlp.experts.down_proj", torch.zeros(8, 4, 2))
    True
    >>> is_hidden("lm_head.weight", torch.zeros(9, 4)), is_hidden("model.norm.weight", torch.zeros(4))
    (False, False)
    """
    return weight.ndim >= 2 and not name.endswith(NOT_HIDDEN)


def matrices(name: str, weight: Tensor) -> Tensor:
    """A view of a weight as the matrices that it holds, [N, rows, columns].

    An expert's gate and up projection are stored in one; each is a matrix of its own, as where they are stored apart.

    >>> matrices("experts.gate_up_proj", torch.zeros(8, 6, 4)).shape
    torch.Size([16, 3, 4])
    """
    if name.endswith("experts.gate_up_proj"):
        return weight.view(-1, weight.shape[-2] // 2, weight.shape[-1])
    return weight.view(-1, *weight.shape[-2:])


def lying(stack: Tensor) -> Tensor:
    """A view with no more rows than columns: products of rows with rows are then the small ones.

    >>> lying(torch.zeros(2, 5, 3)).shape
    torch.Size([2, 3, 5])
    """
    return stack.mT if stack.shape[-2] > stack.shape[-1] else stack


def orthogonal(stack: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Each matrix of [N, rows, columns], rows <= columns, with its singular values brought to about 1 (0.6 to 1.3).

    Five rounds of x ← a x + b x³ + c x⁵ on the singular values alone, which takes no decomposition: X Xᵀ X cubes them.
    """
    assert stack.shape[-2] <= stack.shape[-1], "lay the matrices down first"
    a, b, c = QUINTIC
    done = []
    for x in stack.split(TOGETHER):
        x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=SMALLEST_NORM)).to(dtype)
        for _ in range(ROUNDS):
            square = x @ x.mT
            powers = torch.baddbmm(square, square, square, beta=b, alpha=c)
            x = torch.baddbmm(x, powers, x, beta=a)
        done.append(x)
    return torch.cat(done).float()
