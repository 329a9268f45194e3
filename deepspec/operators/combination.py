"""Linear combinations of symmetric operators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.engine.distributed import ALONE, Group
from deepspec.operators._contract import check_space, same_place
from deepspec.operators.base import SymmetricOperator


class LinearCombination(SymmetricOperator):
    """Σ_i a_i A_i, one product of each A_i.

    Parameters
    ----------
    terms
        Pairs (a_i, A_i); terms that are combinations themselves are opened up.

    Raises
    ------
    TypeError
        If a term is no operator, or there is none.
    ValueError
        If sizes, dtypes or devices differ.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.eye(2))
    >>> LinearCombination((2.0, A), (-0.5, A)) @ torch.ones(2)
    tensor([1.5000, 1.5000])
    """

    def __init__(self, *terms: tuple[float, SymmetricOperator]) -> None:
        flat: list[tuple[float, SymmetricOperator]] = []
        for factor, operator in terms:
            if not isinstance(operator, SymmetricOperator):
                raise TypeError(
                    f"expected an operator, got {type(operator).__name__}; wrap a matrix as "
                    "deepspec.MatrixOperator(M)"
                )
            if isinstance(operator, LinearCombination):
                flat.extend((factor * inner, term) for inner, term in operator.terms)
            else:
                check_space(operator)
                flat.append((factor, operator))
        if not flat:
            raise TypeError("expected at least one term, got none")
        first = flat[0][1]
        for _, operator in flat:
            alike = (operator.size, operator.dtype) == (first.size, first.dtype)
            if not alike or not same_place(operator.device, first.device):
                raise ValueError(
                    "expected operators of one size, dtype and device; got "
                    f"{first!r} and {operator!r}"
                )
        super().__init__(first.size, first.dtype, first.device)
        self.terms: tuple[tuple[float, SymmetricOperator], ...] = tuple(flat)

    @property
    def epsilon(self) -> float:
        return max(term.epsilon for _, term in self.terms)

    def describe(self) -> str:
        return sum_in_words((factor, term.describe()) for factor, term in self.terms)

    def fingerprint(self) -> dict[str, str | int | float]:
        parts = [(factor, operator.fingerprint()) for factor, operator in self.terms]
        named: dict[str, str | int | float] = {}
        for place, (factor, part) in enumerate(parts):
            named[f"term {place} factor"] = factor
            named.update({f"term {place} {name}": value for name, value in part.items()})
        return {**self._identity(), **named}

    def prepare(self, matvecs: int) -> None:
        for _, operator in self.terms:
            operator.prepare(matvecs)

    @property
    def group(self) -> Group:
        groups = (operator.group for _, operator in self.terms)
        return next((group for group in groups if not group.alone), ALONE)

    def plan(self) -> dict[str, str | int]:
        return {
            f"{place}. {name}": value
            for place, (_, operator) in enumerate(self.terms)
            for name, value in operator.plan().items()
        }

    def follow(self, plan: Mapping[str, str | int]) -> None:
        for place, (_, operator) in enumerate(self.terms):
            start = f"{place}. "
            operator.follow(
                {k.removeprefix(start): v for k, v in plan.items() if k.startswith(start)}
            )

    def _product(self, columns: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
        total = torch.zeros_like(columns)
        for factor, operator in self.terms:
            total.add_(operator @ columns, alpha=factor)
        return total


def sum_in_words(terms: Iterable[tuple[float, str]]) -> str:
    """Σ a_i A_i as one writes it by hand.

    >>> sum_in_words([(1.0, "G"), (-1.0, "G_class"), (2.0, "G off 3 dimensions")])
    'G − G_class + 2·(G off 3 dimensions)'
    >>> sum_in_words([(-1.0, "G")])
    '−G'
    """
    text = ""
    for factor, words in terms:
        sign = "−" if factor < 0 else "+" if text else ""
        size = "" if abs(factor) == 1 else f"{abs(factor):g}·"
        text += f" {sign} {size}{bracketed(words)}" if text else f"{sign}{size}{bracketed(words)}"
    return text


def bracketed(words: str) -> str:
    """In brackets, unless it is a single word."""
    return f"({words})" if " " in words else words
