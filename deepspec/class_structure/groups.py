"""Classes taken together in groups: means of few groups where there are very many classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

Groups = Tensor | Sequence[Sequence[int]]


def as_grouping(groups: Any, num_classes: int) -> Int[Tensor, " C"]:
    """The group of each class: from a tensor of them, or from lists of the classes in each group.

    Raises
    ------
    TypeError
        If it is neither.
    ValueError
        If a class is in no group or in two, or there is no such class.

    >>> as_grouping([[0, 3], [1, 2]], 4)
    tensor([0, 1, 1, 0])
    """
    if isinstance(groups, Tensor):
        if groups.shape != (num_classes,) or groups.dtype.is_floating_point:
            raise ValueError(
                f"expected groups as a whole number for each of the {num_classes} classes, got "
                f"{tuple(groups.shape)} {groups.dtype}; or give lists of the classes in each group"
            )
        found = groups.long()
        if int(found.min()) < 0:
            raise ValueError(
                f"expected groups numbered from 0, got {int(found.min())} for class "
                f"{int(found.argmin())}; give the classes that are left over a group of their own"
            )
        return found.unique(return_inverse=True)[1]
    if not isinstance(groups, Sequence) or not all(
        isinstance(g, Sequence) and not isinstance(g, str) for g in groups
    ):
        raise TypeError(
            "expected groups as a tensor of each class's group, or lists of the classes in each "
            f"group, got {groups!r:.60}"
        )
    found = torch.full((num_classes,), -1, dtype=torch.long)
    for number, members in enumerate(groups):
        for member in members:
            if not 0 <= int(member) < num_classes:
                raise ValueError(f"expected classes in 0..{num_classes - 1}, got {member}")
            if int(found[member]) >= 0:
                raise ValueError(f"expected each class in one group, got class {member} in two")
            found[member] = number
    if bool((found < 0).any()):
        missed = (found < 0).nonzero()[:, 0].tolist()
        raise ValueError(
            f"expected each class in a group, but {len(missed)} are in none, such as {missed[:3]}; "
            "put the rest into one more group"
        )
    return found


def frequent_classes(labels: Int[Tensor, " n"], num_classes: int, k: int) -> Int[Tensor, " C"]:
    """Groups for class structure: the k most frequent classes one by one, the rest together.

    >>> frequent_classes(torch.tensor([3, 3, 1, 3, 1, 0]), 5, 2)
    tensor([2, 1, 2, 0, 2])

    Raises
    ------
    ValueError
        If k is not in 1..C.
    """
    if not 1 <= k <= num_classes:
        raise ValueError(f"expected 1 to {num_classes} frequent classes, got {k}")
    counts = torch.bincount(labels, minlength=num_classes)
    order = counts.argsort(descending=True, stable=True)[:k]
    found = torch.full((num_classes,), k, dtype=torch.long, device=labels.device)
    found[order] = torch.arange(k, device=labels.device)
    return found
