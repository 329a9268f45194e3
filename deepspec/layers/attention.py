"""The projections of nn.MultiheadAttention, which are no modules' calls.

Its block applies ``in_proj_weight`` and the weight of ``out_proj`` as tensors, by two calls of
``torch.nn.functional.linear``, so that a hook on ``out_proj`` never fires. While a block runs, and
only then, those calls are looked at here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

# What to do with a module's input and output, both (sample, position, …): a new output.
Note = Callable[[nn.Module, Tensor, Tensor], Tensor]


def attention_of(model: nn.Module) -> dict[nn.Module, nn.MultiheadAttention]:
    """Each block's projections by the modules that stand for them: the block itself, out_proj."""
    found: dict[nn.Module, nn.MultiheadAttention] = {}
    for block in model.modules():
        if type(block) is nn.MultiheadAttention:
            found[block] = found[block.out_proj] = block
    return found


@contextmanager
def projections_noted(wanted: dict[nn.Module, nn.MultiheadAttention], note: Note) -> Iterator[None]:
    """Note every product with the wanted projections; all is as it was afterwards.

    In a block with different queries and keys the input projection is used in pieces, and is not
    noted.
    """
    handles, spying = [], ExitStack()

    def begin(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        assert isinstance(block, nn.MultiheadAttention)
        query = args[0] if args else kwargs["query"]
        if query.ndim == 3:
            positions = query.shape[1 if block.batch_first else 0]
            spying.enter_context(_linear_noted(block, positions, wanted, note))

    def end(block: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        spying.close()

    try:
        for block in set(wanted.values()):
            handles.append(block.register_forward_pre_hook(begin, with_kwargs=True))
            handles.append(block.register_forward_hook(end, always_call=True))
        yield
    finally:
        spying.close()
        for handle in handles:
            handle.remove()


@contextmanager
def _linear_noted(
    block: nn.MultiheadAttention,
    positions: int,
    wanted: dict[nn.Module, nn.MultiheadAttention],
    note: Note,
) -> Iterator[None]:
    plain = F.linear

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        output = plain(input, weight, bias)
        if weight is block.in_proj_weight and block in wanted:  # (position, sample, ·)
            seen = note(block, input.transpose(0, 1), output.transpose(0, 1))
            return seen.transpose(0, 1)
        if weight is block.out_proj.weight and block.out_proj in wanted:  # both in one
            shape = (positions, -1)
            inputs = input.unflatten(0, shape).transpose(0, 1)
            seen = note(block.out_proj, inputs, output.unflatten(0, shape).transpose(0, 1))
            return seen.transpose(0, 1).flatten(0, 1)
        return output

    F.linear = linear
    try:
        yield
    finally:
        F.linear = plain
