"""Block-diagonal operators: one operator for each stretch of the coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.operators._contract import check_space, same_place
from deepspec.operators.base import SymmetricOperator
from deepspec.operators.kronecker import check_count


@runtime_checkable
class HasEigenvalues(Protocol):
    """An operator whose largest eigenvalues are known without an iteration of one's own."""

    def eigenvalues(self, k: int | None = None) -> Float[Tensor, " k"]: ...


@runtime_checkable
class HasEigenpairs(Protocol):
    """The same with vectors."""

    def eigenpairs(self, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "p k"]]: ...


class BlockDiagonal(SymmetricOperator):
    """blkdiag(A_1, …, A_L): each operator acts on its own stretch of the coordinates, in order.

    Parameters
    ----------
    blocks
        The operators A_l.

    Raises
    ------
    TypeError
        If a block is no operator, or there is none.
    ValueError
        If their dtypes or devices differ.

    >>> from deepspec.operators.kronecker import KroneckerProduct
    >>> first, second = (KroneckerProduct(s * torch.eye(1), torch.eye(2)) for s in (2.0, 3.0))
    >>> B = BlockDiagonal([first, second])
    >>> B @ torch.ones(4), B.eigenvalues(3)
    (tensor([2., 2., 3., 3.]), tensor([3., 3., 2.], dtype=torch.float64))
    """

    def __init__(self, blocks: Sequence[SymmetricOperator]) -> None:
        if not blocks:
            raise TypeError("expected at least one block, got none")
        for block in blocks:
            if not isinstance(block, SymmetricOperator):
                raise TypeError(
                    f"expected an operator as a block, got {type(block).__name__}; wrap a matrix "
                    "as deepspec.MatrixOperator(M)"
                )
            check_space(block)
            if block.dtype != blocks[0].dtype or not same_place(block.device, blocks[0].device):
                raise ValueError(
                    f"expected blocks of one dtype and device; got {blocks[0]!r} and {block!r}"
                )
        super().__init__(sum(b.size for b in blocks), blocks[0].dtype, blocks[0].device)
        self.blocks = tuple(blocks)

    def describe(self) -> str:
        return f"blkdiag({', '.join(block.describe() for block in self.blocks)})"

    def eigenvalues(self, k: int | None = None) -> Float[Tensor, " k"]:
        """The k largest eigenvalues (all by default): those of the blocks, merged; float64.

        Raises
        ------
        TypeError
            If a block does not know its own.
        """
        wanted = self.size if k is None else min(check_count(k), self.size)
        found = []
        for block in self.blocks:
            if not isinstance(block, HasEigenvalues):
                raise _unknown(block)
            found.append(block.eigenvalues(None if k is None else min(k, block.size)))
        return torch.cat(found).sort(descending=True)[0][:wanted]

    def eigenpairs(self, k: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "p k"]]:
        """The k largest eigenvalues and their vectors, each of which lives on one block.

        Raises
        ------
        TypeError
            If a block does not know its own.
        """
        values, owners = [], []
        for place, block in enumerate(self.blocks):
            if not isinstance(block, HasEigenpairs):
                raise _unknown(block)
            own, vectors = block.eigenpairs(min(check_count(k), block.size))
            values.append(own)
            owners.append((place, vectors))
        merged = torch.cat(values)
        order = merged.sort(descending=True, stable=True)[1][:k]
        found = torch.zeros(self.size, len(order), dtype=self.dtype, device=self.device)
        first, start = 0, 0
        for place, vectors in owners:
            count, size = vectors.shape[1], self.blocks[place].size
            mine = (order >= first) & (order < first + count)
            found[start : start + size, mine] = vectors[:, order[mine] - first]
            first, start = first + count, start + size
        return merged[order], found

    def prepare(self, matvecs: int) -> None:
        for block in self.blocks:
            block.prepare(matvecs)

    def plan(self) -> dict[str, str | int]:
        return {
            f"{place}. {name}": value
            for place, block in enumerate(self.blocks)
            for name, value in block.plan().items()
        }

    def follow(self, plan: Mapping[str, str | int]) -> None:
        for place, block in enumerate(self.blocks):
            start = f"{place}. "
            block.follow({k.removeprefix(start): v for k, v in plan.items() if k.startswith(start)})

    def fingerprint(self) -> dict[str, str | int | float]:
        named = {
            f"block {place} {name}": value
            for place, block in enumerate(self.blocks)
            for name, value in block.fingerprint().items()
        }
        return {**self._identity(), **named}

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        parts = columns.split([block.size for block in self.blocks])
        return torch.cat([block @ part for block, part in zip(self.blocks, parts, strict=True)])


def _unknown(block: SymmetricOperator) -> TypeError:
    return TypeError(
        f"expected blocks that know their eigenvalues, got {block!r}; use "
        "deepspec.top_eigenpairs on the whole"
    )
