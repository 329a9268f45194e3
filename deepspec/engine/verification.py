"""Derivatives held against difference quotients, in float64 on a few rows, before any work.

Any rule can be wrong, in either direction and either order: PyTorch's, or that of a user's
autograd.Function. Forward and reverse mode may agree on what is wrong, so the judge is independent:
the function itself, evaluated at θ ± h v. Both one-sided quotients are taken, D₊ and D₋. Their
difference is what rounding and curvature leave, and is large beside a kink; where it is, nothing is
judged. So a tolerance never depends on the number of samples, and piecewise linear nets pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.parameters import ParameterSpace
from deepspec.engine.autodiff import HessianProducts, JacobianProducts, LogitGradient
from deepspec.engine.double_precision import InDouble, direction, moved

STEP, TOLERANCE, SHIFT = 1e-6, 1e-5, 1e-3
EPS = torch.finfo(torch.float64).eps
Products = Callable[[LogitFunction], JacobianProducts]
SecondProducts = Callable[[LogitFunction, LogitGradient], HessianProducts]


def is_wrong(found: Tensor, at: Tensor, plus: Tensor, minus: Tensor, *, floor: float) -> bool:
    """Whether a derivative is none of the quotients, of values at 0, +h and −h."""
    forward, backward = (plus - at) / STEP, (at - minus) / STEP
    centre = (forward + backward) / 2
    scale = max(float(found.norm()), float(centre.norm()))
    allowed = TOLERANCE * scale + floor
    spread = 2 * float((forward - backward).norm())
    return all(
        float((found - quotient).norm()) > bound
        for quotient, bound in ((centre, allowed + spread), (forward, allowed), (backward, allowed))
    )


def first_order_is_wrong(function: LogitFunction, products: Products) -> bool:
    """Whether J v is no difference quotient of the logits, or Jᵀ is not the transpose of J."""
    return all(_first(function, products, seed) for seed in (1, 2))


def _first(function: LogitFunction, products: Products, seed: int) -> bool:
    vector = direction(function, seed)
    with torch.no_grad():
        at, plus, minus = (function(moved(function, vector, s)) for s in (0.0, STEP, -STEP))
    jacobian = products(function)
    pushed = jacobian.jvp(vector)
    floor = 1e3 * EPS * float(at.norm()) / STEP
    if is_wrong(pushed, at, plus, minus, floor=floor):
        return True
    weights = torch.cos(torch.arange(pushed.numel(), device=pushed.device)).to(pushed)
    weights, pulled = weights.view_as(pushed), torch.zeros_like(vector)
    jacobian.vjp(weights, pulled)
    terms = (pulled * vector).abs().sum() + (pushed * weights).abs().sum()
    return abs(float((pushed * weights).sum() - pulled @ vector)) > 1e-9 * float(terms)


def curved(logits: Float[Tensor, "b C"]) -> Float[Tensor, "b C"]:
    """The gradient of a function of the logits that has a slope and a curvature everywhere."""
    slope = torch.cos(torch.arange(logits.numel(), device=logits.device)).to(logits)
    return slope.view_as(logits) + logits


def second_order_is_wrong(function: LogitFunction, products: SecondProducts) -> bool:
    """Whether ∇²φ v is no difference quotient of ∇φ, in any of the tensors of θ."""
    return all(_second(function, products, seed) for seed in (3, 4))


def _second(function: LogitFunction, products: SecondProducts, seed: int) -> bool:
    vector = direction(function, seed)

    def gradient(step: float) -> Tensor:
        leaves = moved(function, vector, step)
        logits = function(leaves)
        inputs = list(leaves.values())
        with torch.no_grad():
            coefficients = curved(logits)
        parts = torch.autograd.grad(
            logits, inputs, coefficients, allow_unused=True, materialize_grads=True
        )
        return torch.cat([part.reshape(-1) for part in parts])

    at, plus, minus = gradient(0.0), gradient(STEP), gradient(-STEP)
    found = torch.zeros_like(vector)
    products(function, curved).product(vector, found)
    counts = function.space.counts
    floor = 1e-7 * float(found.norm()) + 1e3 * EPS * float(at.norm()) / STEP
    blocks = [tensor.split(counts) for tensor in (found, at, plus, minus)]
    return any(is_wrong(*parts, floor=floor) for parts in zip(*blocks, strict=True))


class ModuleFunction(LogitFunction):
    """One call of a module, as a function of its parameters and of its inputs."""

    def __init__(self, module: nn.Module, tensors: dict[str, Tensor], args: tuple) -> None:
        inputs = {
            f"input {place}": value.detach().double()
            for place, value in enumerate(args)
            if isinstance(value, Tensor) and value.is_floating_point()
        }
        space_of = {**tensors, **inputs}
        space = ParameterSpace(tuple(space_of), tuple(v.shape for v in space_of.values()))
        named = space.unflatten(space.flatten(space_of))
        super().__init__(module, space, named, {}, None, 1)
        self.args = args

    def __call__(self, parameters: Mapping[str, Tensor]) -> Float[Tensor, "b C"]:
        args = tuple(
            parameters[f"input {place}"].clone() if f"input {place}" in parameters else value
            for place, value in enumerate(self.args)
        )
        own = {k: v for k, v in parameters.items() if not k.startswith("input ")}
        with InDouble():
            output = torch.func.functional_call(self.model, own, args)
        if not isinstance(output, Tensor):
            raise TypeError("expected a tensor")
        return output.reshape(1, -1)


def calls(function: LogitFunction) -> Iterator[tuple[str, ModuleFunction]]:
    """Each module's first call, the smallest modules first."""
    seen: dict[nn.Module, tuple] = {}

    def note(module: nn.Module, args: tuple) -> None:
        tensors = tuple(a.detach().clone() if isinstance(a, Tensor) else a for a in args)
        tensors_of = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        own = {k: v.detach().clone() for k, v in tensors_of.items() if v.is_floating_point()}
        seen.setdefault(module, (own, tensors))

    modules = {module: name for name, module in function.model.named_modules()}
    handles = [module.register_forward_pre_hook(note) for module in modules]
    try:
        with torch.no_grad():
            function(function.parameters)
    finally:
        for handle in handles:
            handle.remove()
    for module in sorted(seen, key=lambda module: sum(1 for _ in module.modules())):
        name = modules[module]
        kind = type(module).__name__
        yield (f"{name} ({kind})" if name else kind), ModuleFunction(module, *seen[module])


def culprit(function: LogitFunction, fails: Callable[[LogitFunction], bool]) -> str:
    """The smallest module that fails alone; the whole model where none does."""
    for name, call in calls(function):
        try:
            if call.space.size and fails(call):
                return name
        except Exception:
            continue  # what cannot be run alone is not what is looked for
    return type(function.model).__name__
