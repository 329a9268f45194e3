"""Several processes as one: the only module in which tensors go from one rank to another.

Each rank holds its share of the samples and all of everything else: logits, labels, vectors of
length p. What a product needs of the others is J v, n × C numbers that are put together, or Jᵀ r,
p numbers that are added. Batches are the blocks of these sums whatever the number of ranks, one
vector a block, added in the order of the data: so one process and N give the same bits.

Tensors and JSON travel, pickled objects never.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from deepspec.engine.members import Members
from deepspec.memory import free_memory

# Numbers of a sum that are under way at a time: while one piece travels the next is added.
PIECE = 2**20


class Group(Members):
    """The processes that a problem is spread over; by default this one alone.

    Every method is a collective: all ranks call it, in the same order. Of one process each is
    the identity. Parameters as for :class:`Members`.

    >>> Group().size, Group().joined(torch.ones(2))
    (1, tensor([1., 1.]))
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | None = None,
    ) -> None:
        super().__init__(process_group, device)
        #: Bytes that this rank has sent, once for each receiver.
        self.sent = 0

    def fill(self, whole: Tensor, parts: Sequence[tuple[slice, int]], what: str) -> None:
        """Rows of a contiguous ``whole``, each from the rank that has them; in place."""
        if self.alone:
            return

        def exchange() -> None:
            under_way = []
            for rows, owner in parts:
                piece = whole[rows]
                if piece.numel():
                    onto = self._on_wire(piece)
                    work = dist.broadcast(onto, group_src=owner, group=self._group, async_op=True)
                    under_way.append((work, piece, onto))
                    self._count(owner, piece)
            for work, piece, onto in under_way:
                work.wait()
                if onto is not piece:
                    piece.copy_(onto)

        self._watched(exchange, what)

    def joined(self, mine: Tensor | None) -> Tensor:
        """All ranks' rows, one after the other; ``None`` where a rank has none.

        Raises
        ------
        ValueError
            If the rows differ in shape.
        """
        if self.alone:
            assert mine is not None
            return mine
        kinds = self.values(None if mine is None else [list(mine.shape), _name(mine.dtype)])
        known = [kind for kind in kinds if kind is not None]
        if len({(tuple(shape[1:]), dtype) for shape, dtype in known}) != 1:
            raise ValueError(f"expected rows of one kind on all ranks, got {known}")
        (_, *shape), dtype = known[0]
        counts = [0 if kind is None else kind[0][0] for kind in kinds]
        whole = torch.empty(sum(counts), *shape, dtype=getattr(torch, dtype), device=self.device)
        parts, start = [], 0
        for rank, count in enumerate(counts):
            parts.append((slice(start, start + count), rank))
            start += count
        if mine is not None:
            whole[parts[self.rank][0]] = mine
        self.fill(whole, parts, "putting rows together")
        return whole

    def exchanged(
        self, mine: tuple[slice, Sequence[Tensor]] | None
    ) -> list[tuple[slice, list[Tensor]]]:
        """Each rank's tensors of some rows, on all ranks, by rank; ``None`` gives nothing."""
        if self.alone:
            return [] if mine is None else [(mine[0], list(mine[1]))]
        words = None
        if mine is not None:
            kinds = [[list(tensor.shape), _name(tensor.dtype)] for tensor in mine[1]]
            words = {"rows": [mine[0].start, mine[0].stop], "kinds": kinds}
        told = self.values(words)
        found = []
        for owner, word in enumerate(told):
            if word is None:
                continue
            if owner == self.rank and mine is not None:
                tensors = [tensor.contiguous() for tensor in mine[1]]
            else:
                tensors = [
                    torch.empty(shape, dtype=getattr(torch, dtype), device=self.device)
                    for shape, dtype in word["kinds"]
                ]
            for tensor in tensors:
                flat = tensor.view(-1).view(torch.uint8)
                self.fill(flat, [(slice(0, len(flat)), owner)], "an exchange of records")
            found.append((slice(*word["rows"]), tensors))
        return found

    def state_from_first(
        self, work: Callable[[], tuple[Any, dict[str, Tensor]] | None]
    ) -> tuple[Any, dict[str, Tensor]] | None:
        """JSON and tensors that ``work`` gives on the first rank, on all; and so with errors."""
        if self.alone:
            return work()
        tensors: dict[str, Tensor] = {}

        def words() -> Any:
            nonlocal tensors
            state = work()
            if state is None:
                return None
            tensors = state[1]
            kinds = {n: [list(t.shape), _name(t.dtype)] for n, t in tensors.items()}
            return {"words": state[0], "kinds": kinds}

        told = self.from_first(words)
        if told is None:
            return None
        for name, (shape, dtype) in told["kinds"].items():
            if self.rank:
                tensors[name] = torch.empty(shape, dtype=getattr(torch, dtype))
            flat = tensors[name].contiguous().view(-1).view(torch.uint8)
            self.fill(flat, [(slice(0, len(flat)), 0)], "reading a checkpoint")
        return told["words"], tensors

    def add_in_order(self, total: Tensor, blocks: Sequence[Tensor]) -> None:
        """In place: the first rank's ``total`` and every other rank's blocks, in order, on all.

        The running total goes from rank to rank, each of which adds its own blocks one after the
        other, just as one process would; the last one gives it to everybody.
        """
        if self.alone:
            return
        last = self.size - 1

        def exchange() -> None:
            whole = self._on_wire(total)
            pieces = whole.view(-1).split(PIECE)
            own = [block.reshape(-1).split(PIECE) for block in blocks]
            sends = []
            for number, piece in enumerate(pieces):
                if self.rank > 0:
                    dist.recv(piece, group_src=self.rank - 1, group=self._group)
                    for block in own:
                        piece.add_(block[number].to(piece.device))
                if self.rank < last:
                    send = dist.isend(piece, group_dst=self.rank + 1, group=self._group)
                    sends.append(send)
                    self.sent += piece.numel() * piece.element_size()
            for send in sends:
                if send is not None:
                    send.wait()
            dist.broadcast(whole, group_src=last, group=self._group)
            self._count(last, whole)
            if whole is not total:
                total.copy_(whole)

        self._watched(exchange, "a sum over ranks")

    def add(self, total: Tensor) -> None:
        """In place: the sum over ranks, in whatever order; meant for float64."""
        if self.alone:
            return

        def exchange() -> None:
            whole = self._on_wire(total)
            dist.all_reduce(whole, group=self._group)
            self.sent += 2 * whole.numel() * whole.element_size() * (self.size - 1) // self.size
            if whole is not total:
                total.copy_(whole)

        self._watched(exchange, "a sum over ranks")

    # ---- memory, and who does what --------------------------------------------------------------

    def sharing(self) -> int:
        """How many ranks have this one's device, and so its memory, in common."""
        place = f"{socket.gethostname()} {self.device}"
        if self.device.type == "cuda":  # each rank may see only its own, as number 0
            place += f" {torch.cuda.get_device_properties(self.device).uuid}"
        return self.values(place).count(place)

    def free_memory(self) -> int:
        """Bytes that each rank may count on; the least of all."""
        return self.lowest(free_memory(self.device) // self.sharing())

    def owner(self, block: int) -> int:
        """Who has a block of rows in a triangle, whose later ones cost more: to and fro."""
        turn = block % (2 * self.size)
        return min(turn, 2 * self.size - 1 - turn)

    # ---- inside ---------------------------------------------------------------------------------

    def _on_wire(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.device == self._wire else tensor.to(self._wire)

    def _count(self, owner: int, tensor: Tensor) -> None:
        if owner == self.rank:
            self.sent += tensor.numel() * tensor.element_size() * (self.size - 1)


ALONE = Group()


def as_group(group: Any, device: torch.device) -> Group:
    """The group that a user means: one of ``torch.distributed``, or none.

    Raises
    ------
    TypeError
        If it is something else.
    ValueError
        If its backend cannot carry what is on the device.
    """
    if group is None:
        return Group(None, device)
    if not dist.is_available() or not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            f"expected a process group, got {group!r:.60}; call "
            "torch.distributed.init_process_group() and pass group=torch.distributed.group.WORLD"
        )
    return Group(group, device)


def speaks() -> bool:
    """Whether this process is the one that prints: the first of its group, or one by itself."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_rank() == 0


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
