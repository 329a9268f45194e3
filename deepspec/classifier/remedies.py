"""What to do about a model that cannot be run or differentiated, where PyTorch does not say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from deepspec.classifier.failures import raised
from deepspec.classifier.logit_function import LogitFunction, ModelError
from deepspec.classifier.trees import tensors

Result = TypeVar("Result")

CDIST = (
    "for Euclidean distances pass compute_mode='use_mm_for_euclid_dist' to torch.cdist, or write "
    "them out, as (x[:, None] - c).square().sum(2).sqrt()"
)
BAG = "use nn.Embedding with the same weights and the same reduction of its rows"

MAX_NORM = (
    "for an embedding with max_norm do once what it does at each pass, module.weight.data.renorm_"
    "(2, 0, module.max_norm), and then set module.max_norm = None: the same logits"
)

# How PyTorch's message begins to say it, and what helps.
REMEDIES = {
    "cdist": CDIST,
    "embedding_bag": BAG,
    "uninitialized": "run the model once on a batch first, so that lazy modules get their shapes",
    "setup_context": "pass use_reentrant=False to torch.utils.checkpoint",
    "use_reentrant": "pass use_reentrant=False to torch.utils.checkpoint",
    "sparse": "make embeddings with sparse=False",
    "donated buffer": "give the model from before torch.compile (compiled._orig_mod)",
    "inplace operation": f"give activations inplace=False; {MAX_NORM}",
    "stateless": "give the module inside DataParallel or TorchScript",
    "does not require grad": "do not detach the logits from the parameters",
    "dtype": "pass dtype= the one that the model's forward pass is written for",
    "expected scalar type": "pass dtype= the one that the model's forward pass is written for",
}


# Operations without a second derivative, as PyTorch's message names them.
WRITTEN_OUT = {
    "cdist": CDIST,
    "embedding_bag": BAG,
    "hardsigmoid": "write it out as nn.functional.relu6(x + 3) / 6",
}


def require_untouched(function: LogitFunction, version: int) -> None:
    """No forward pass may write to θ; ``version`` is what PyTorch counted before the first one.

    Raises
    ------
    ValueError
        If one did; by name, with what to do.
    """
    if next(iter(function.parameters.values()))._version == version:
        return
    own = {name: value.detach().clone() for name, value in function.parameters.items()}
    with torch.no_grad():
        function(own)
    names = [name for name, value in own.items() if value._version] or ["a parameter"]
    raise ValueError(
        f"expected a forward pass that leaves the parameters as they are, but it writes to "
        f"{', '.join(names)}; {MAX_NORM}"
    )


def second_order_remedy(said: str) -> str:
    """What to do about an operation that cannot be differentiated twice."""
    found = (hint for sign, hint in WRITTEN_OUT.items() if sign in said.lower())
    return next(found, "write the layer with operations that have one")


def explained(work: Callable[[], Result], doing: str, function: LogitFunction) -> Result:
    """What ``work`` returns; should the model fail, an error that says on what, and what to do.

    Raises
    ------
    RuntimeError
        With the model's own error inside.
    """
    try:
        return work()
    except (torch.OutOfMemoryError, ModelError):
        raise
    except (RuntimeError, NotImplementedError, TypeError, IndexError) as error:
        remedy = _remedy(str(error).lower(), function)
        raise RuntimeError(
            f"expected {type(function.model).__name__} to be {doing} on {function.place}, but it "
            f"raised {raised(error)}" + (f"; {remedy}" if remedy else "")
        ) from error


def _remedy(said: str, function: LogitFunction) -> str | None:
    if "dtype" in said or "expected scalar type" in said or "not implemented for" in said:
        whole = [t.dtype for t in tensors(function.inputs) if not t.is_floating_point()]
        if whole:
            return (
                f"the inputs are {str(whole[0]).removeprefix('torch.')}: give them as they were "
                "in training, X.float() or scaled, X.float() / 255"
            )
    return next((hint for sign, hint in REMEDIES.items() if sign in said), None)
