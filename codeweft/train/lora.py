"""LoRA: train small matrices beside the frozen ones, then add their products to the weights and be a plain model again.

In:  a model, what to adapt and how widely.  Out: the model with adapters as its only trainable weights; or merged.
Source: Hu et al. 2021, arXiv 2106.09685, §4.1; first values as PEFT's: A uniform within 1/sqrt(inputs), B zero.
Unusual: an adapter is no side path of activations. A block computes with effective weights W + (alpha / rank) B A, made
anew in each forward pass, because weights are read as such in many places: by the fused kernels, the grouped products
of the experts and the absorbed attention. So all of these work unchanged, and the model that is trained is to the bit
the merged one: the sum is rounded to the type of W once, in either. The price: gradients of whole matrices exist for a
moment, so a step computes as much as one that trains everything; what is saved is the memory of gradients, masters and
moments. Effective weights are not kept from forward to backward either: what autograd would store of them is made again
when it asks for it.

Shapes: O outputs, I inputs, R rank, E experts.
"""

import copy
import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from codeweft.base.config import nearest
from codeweft.base.errors import ConfigError
from codeweft.base.seeds import derive
from codeweft.model.attention import Linear
from codeweft.model.moe import Experts, RouterOutput
from codeweft.model.transformer import Block, Transformer
from codeweft.train.config import LoraConfig

SUFFIX = "_adapter"  # of the submodule that adapts a parameter: weight_adapter, gate_up_proj_adapter, down_proj_adapter


class Adapter(nn.Module):
    """The low-rank difference to one matrix, or to each of a stack of them; float32 whatever the matrix is."""

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        *experts, outputs, inputs = weight.shape
        self.rank, self.alpha = rank, alpha
        self.lora_A = nn.Parameter(torch.zeros(*experts, rank, inputs, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(*experts, outputs, rank, device=weight.device))

    @torch.no_grad()
    def draw(self, seed: int) -> None:
        """Draw A; B stays zero, so that training starts from the model as it was."""
        drawn = torch.empty(self.lora_A.shape)  # on the CPU, so that every device starts from the same numbers
        bound = 1 / math.sqrt(drawn.shape[-1])  # Kaiming's with a = sqrt(5)
        self.lora_A.copy_(drawn.uniform_(-bound, bound, generator=torch.Generator().manual_seed(seed)))

    def effective(self, weight: Tensor) -> Tensor:
        """W + (alpha / rank) B A of [O, I] or [E, O, I], summed in float32, in the type of W."""
        add = torch.addmm if weight.ndim == 2 else torch.baddbmm
        return add(weight.float(), self.lora_B, self.lora_A, alpha=self.alpha / self.rank).to(weight.dtype)


class Matrix(NamedTuple):
    """A matrix of the layers, or a stack of them, that can be adapted."""

    path: str  # of its module in the model
    owner: nn.Module
    parameter: str  # its name in the owner

    @property
    def target(self) -> str:
        """The name that settings know it by: `q_proj` in every layer, `experts.down_proj`."""
        name = self.path.rpartition(".")[2]
        return name if self.parameter == "weight" else f"{name}.{self.parameter}"

    @property
    def weight(self) -> nn.Parameter:
        """The frozen weights, also while effective ones stand in for them."""
        return dict(self.owner.named_parameters(recurse=False))[self.parameter]

    @property
    def adapter(self) -> Adapter | None:
        """Its adapter, if it has one."""
        found = getattr(self.owner, self.parameter + SUFFIX, None)
        return found if isinstance(found, Adapter) else None

    def attach(self, rank: int, alpha: float) -> Adapter:
        """Put an adapter of zeros beside it."""
        assert self.adapter is None, f"{self.path} has an adapter"
        adapter = Adapter(self.weight, rank, alpha)
        self.owner.add_module(self.parameter + SUFFIX, adapter)
        return adapter


def matrices(model: nn.Module) -> list[Matrix]:
    """Every matrix in a model's, or a block's, layers that can be adapted: projections and stacked experts."""
    blocks = ((path, block) for path, block in model.named_modules() if isinstance(block, Block))
    return [
        Matrix(f"{path}.{name}".lstrip("."), owner, parameter)
        for path, block in blocks
        for name, owner in block.named_modules()
        if isinstance(owner, Linear | Experts)
        for parameter, _ in owner.named_parameters(recurse=False)
    ]


def adapted(model: nn.Module) -> list[tuple[Matrix, Adapter]]:
    """The matrices that have an adapter, with it."""
    return [(matrix, matrix.adapter) for matrix in matrices(model) if matrix.adapter is not None]


def add(model: Transformer, config: LoraConfig, seed: int) -> int:
    """Freeze the model and give its matrices adapters that change nothing yet; returns how many numbers are trained.

    ConfigError for a target that the model has not. Cast or move the model before, not after: adapters stay float32.
    """
    assert config.rank > 0, "rank 0 means no adapters"
    found = matrices(model)
    known = dict.fromkeys(matrix.target for matrix in found)
    for target in config.targets:
        if target not in known:
            raise ConfigError(f"lora.targets: this model has no matrix {target} to adapt.", nearest(target, known))
    freeze(model)
    for matrix in found:
        if matrix.target in (config.targets or known):
            adapter = matrix.attach(config.rank, config.alpha)
            adapter.draw(derive(seed, "lora", matrix.path, matrix.parameter))
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def freeze(model: Transformer) -> None:
    """Train no weight of the model itself, and let its blocks compute with the adapters that they will get."""
    model.requires_grad_(False)
    for module in list(model.modules()):
        if isinstance(module, Block):
            module.__class__ = AdaptedBlock


@torch.no_grad()
def merge_(model: Transformer) -> Transformer:
    """Add the adapters to the weights, in place, and remove them: a plain model, trainable, fit for `save_folder`."""
    for matrix, adapter in adapted(model):
        matrix.weight.copy_(adapter.effective(matrix.weight))
        delattr(matrix.owner, matrix.parameter + SUFFIX)
    for module in list(model.modules()):
        if isinstance(module, AdaptedBlock):
            module.__class__ = Block
    return model.requires_grad_(True)


def merged(model: Transformer) -> Transformer:
    """A plain copy with the adapters added to its weights; the model keeps its own."""
    return merge_(copy.deepcopy(model))


class AdaptedBlock(Block):
    """A block whose parameters are the frozen ones, except inside its forward pass."""

    def forward(self, hidden_BTD: Tensor, *about: Any) -> tuple[Tensor, RouterOutput | None]:
        """As `Block.forward`, with effective weights."""
        with effective_weights(self):
            return super().forward(hidden_BTD, *about)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is stored for backward in place of an effective weight, or a view of one."""

    matrix: int  # index into the block's adapted matrices
    size: torch.Size
    stride: tuple[int, ...]
    offset: int | torch.SymInt


@contextmanager
def effective_weights(block: Block) -> Generator[None, None, None]:
    """Let the block's modules see their effective weights, which no graph made in here keeps alive."""
    pairs = adapted(block)
    storages: dict[int, int] = {}
    again: dict[int, Tensor] = {}  # remade in backward; goes when the last node of this pass does

    def pack(tensor: Tensor) -> Tensor | Recipe:
        index = storages.get(tensor.untyped_storage().data_ptr())
        return tensor if index is None else Recipe(index, tensor.size(), tensor.stride(), tensor.storage_offset())

    def unpack(stored: Tensor | Recipe) -> Tensor:
        if isinstance(stored, Tensor):
            return stored
        if stored.matrix not in again:
            matrix, adapter = pairs[stored.matrix]
            with torch.no_grad():
                again[stored.matrix] = adapter.effective(matrix.weight)
        return again[stored.matrix].as_strided(stored.size, stored.stride, stored.offset)

    try:
        for index, (matrix, adapter) in enumerate(pairs):
            weight = adapter.effective(matrix.weight)
            storages[weight.untyped_storage().data_ptr()] = index
            vars(matrix.owner)[matrix.parameter] = weight  # an instance's own entry is found before its parameters
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        for matrix, _ in pairs:
            vars(matrix.owner).pop(matrix.parameter, None)
