"""SiLU (Swish), the only non-linearity of AMP, with a cheap second derivative for force training."""

from typing import Any

import torch
from torch import Tensor


def silu(x: Tensor) -> Tensor:
    """x · sigmoid(x), elementwise.

    Torch differentiates its own SiLU once with a fused kernel, but builds the second derivative, which training on forces
    needs, from a dozen elementwise operations; eager calls that need gradients have it written out instead.
    """
    if torch.jit.is_scripting():
        return torch.nn.functional.silu(x)
    if not x.requires_grad:
        return torch.nn.functional.silu(x)
    return _SiLU.apply(x)


class _SiLU(torch.autograd.Function):
    """y = x s(x), y' = s (1 + x (1 - s))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.silu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _SiLUBackward.apply(grad, *ctx.saved_tensors)


class _SiLUBackward(torch.autograd.Function):
    """grad · y', whose derivative by x has y'' = s (1 - s) (2 + x (1 - 2 s))."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.silu_backward(grad, x)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        s = torch.sigmoid(x)
        # In place where possible: fresh memory costs more than the arithmetic.
        curvature = torch.addcmul(x, x, s, value=-2.0).add_(2.0).mul_(s)
        curvature.addcmul_(curvature, s, value=-1.0)
        return torch.ops.aten.silu_backward(outer, x), curvature.mul_(grad).mul_(outer)
