"""How much memory tensors take, and how much is free."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor


def graph_nodes(output: Tensor) -> Iterator[Any]:
    """The nodes of the graph of ``output``, each once."""
    seen = set()
    stack = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            stack.extend(parent for parent, _ in node.next_functions)


def graph_tensors(output: Tensor) -> list[Tensor]:
    """The tensors that the graph of ``output`` saved for its backward pass."""
    found: list[Tensor] = []
    for node in graph_nodes(output):
        for name in dir(node):
            if name.startswith("_saved_"):
                value = getattr(node, name)
                values = value if isinstance(value, tuple | list) else (value,)
                found.extend(item for item in values if isinstance(item, Tensor))
    return found


def storage_bytes(tensors: Iterable[Tensor], without: Iterable[Tensor] = ()) -> int:
    """The memory of the tensors' distinct storages, less those of some that exist anyway."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    for tensor in without:
        storages.pop(tensor.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def free_memory(device: torch.device) -> int:
    """Bytes that are free on a device, as far as the system tells."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if os.path.exists("/proc/meminfo"):
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
