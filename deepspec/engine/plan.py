"""The choices made by measurement, plain strings and counts by name: whose they are, and which.

A plan goes into manifests and checkpoints, and can be given back to repeat a computation bit for
bit. What was found right for one version of PyTorch or one net says nothing about another.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Mapping

import torch
from torch import nn

from deepspec.arguments import shown
from deepspec.classifier.parameters import ParameterSpace

Plan = dict[str, str | int]

#: What may be chosen, by the name of the choice; ``None`` stands for a count.
CHOICES: tuple[tuple[str, tuple[str, ...] | None], ...] = (
    (r"forward mode", ("yes", "no", "by rows")),
    (r"hessian: nesting", ("reverse over forward", "reverse over reverse")),
    (r"\w+: linearised", ("right", "wrong")),
    (r"jacobian: kept", ("nothing", "layers", "linearised")),
    (r"\w+: kept", ("nothing", "linearised")),
    (r"\w+: batches held", None),  # or stretches of their numbers, where several ranks hold some
    (r"columns at once: \w*Jacobian\w*", None),
)
STRETCHES = re.compile(r"\d{1,9}(-\d{1,9})?( \d{1,9}(-\d{1,9})?)*")


def identity(
    model: nn.Module, space: ParameterSpace, num_classes: int, dtype: torch.dtype
) -> dict[str, str]:
    """The version of PyTorch, and a hash of the net: modules, shapes, classes and precision."""
    kinds = [f"{name}:{type(module).__name__}" for name, module in model.named_modules()]
    shapes = [
        f"{name}{tuple(shape)}" for name, shape in zip(space.names, space.shapes, strict=True)
    ]
    words = "\n".join([*kinds, *shapes, str(num_classes), str(dtype)])
    return {
        "torch": str(torch.__version__),
        "net": hashlib.sha256(words.encode()).hexdigest()[:16],
    }


def accepted(plan: Mapping[str, str | int], own: Mapping[str, str]) -> dict[str, str | int]:
    """The choices of a plan that hold here; none of those that another PyTorch made.

    Raises
    ------
    ValueError
        If the plan is of another net, does not say whose it is, or has a choice there is not.

    Warns
    -----
    RuntimeWarning
        If it was made with another version of PyTorch.
    """
    choices = {name: choice for name, choice in plan.items() if name not in own}
    for name, choice in choices.items():
        _require_known(name, choice)
    if not choices:
        return {}
    if plan.get("net") != own["net"]:
        raise ValueError(
            f"expected a plan of this net, {own['net']}, got one of "
            f"{plan.get('net', 'no net that it names')!r:.60}; take problem.plan from a problem "
            "with the same net, classes and precision, or give {} to decide anew"
        )
    if plan.get("torch") != own["torch"]:
        warnings.warn(
            f"the plan was made with PyTorch {plan.get('torch', '(not named)')!s:.60}, this is "
            f"{own['torch']}: derivative rules differ between versions, so everything is checked "
            "and decided anew, and results agree with those of before to rounding only",
            RuntimeWarning,
            stacklevel=5,
        )
        return {}
    return choices


def _require_known(name: str, choice: str | int) -> None:
    for pattern, known in CHOICES:
        if re.fullmatch(pattern, name):
            if known is None and isinstance(choice, int) and not isinstance(choice, bool):
                if choice >= 0:
                    return
            elif known is not None and choice in known:
                return
            if name.endswith("batches held") and STRETCHES.fullmatch(str(choice)):
                return
            expected = "a count" if known is None else "one of " + ", ".join(known)
            raise ValueError(
                f"expected {name!r} in a plan to be {expected}, got {shown(choice)}; give a plan "
                "as problem.plan was, or {} to decide anew"
            )
    raise ValueError(
        f"expected a plan with choices that there are, got {name!r:.60}; give a plan as "
        "problem.plan was, or {} to decide anew"
    )
