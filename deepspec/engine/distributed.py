"""Several processes as one: the only module in which tensors go from one rank to another.

Each rank holds its share of the samples and all of everything else: logits, labels, vectors of
length p. What a product needs of the others is J v, n × C numbers that are put together, or Jᵀ r,
p numbers that are added. Batches are the blocks of these sums whatever the number of ranks, one
vector a block, added in the order of the data: so one process and N give the same bits.

Tensors and JSON travel, pickled objects never.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from deepspec.engine.errors import RankFailed, from_words, in_words
from deepspec.engine.watching import Watch
from deepspec.memory import free_memory

Result = TypeVar("Result")

# Numbers of a sum that are under way at a time: while one piece travels the next is added.
PIECE = 2**20


class Group:
    """The processes that a problem is spread over; by default this one alone.

    Every method is a collective: all ranks call it, in the same order. Of one process each is
    the identity.

    Parameters
    ----------
    process_group
        Of ``torch.distributed``; ``None`` for a process by itself.
    device
        Where the problem is; NCCL carries what is on GPUs, and everything else goes by the CPU.

    Raises
    ------
    ValueError
        If the backend cannot carry what is on the device.

    >>> Group().size, Group().values({"n": 3})
    (1, [{'n': 3}])
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device = torch.device("cpu") if device is None else device
        self.rank, self.size, self.backend = 0, 1, ""
        #: Bytes that this rank has sent, once for each receiver.
        self.sent = 0
        self._calls = 0
        if process_group is None:
            return
        self._group = process_group
        self.rank, self.size = dist.get_rank(process_group), dist.get_world_size(process_group)
        self.backend = str(dist.get_backend(process_group))
        on_gpus = "nccl" in self.backend
        if device.type == "cuda" and on_gpus:
            self._wire = device
        elif self.backend == "nccl":
            raise ValueError(
                f"expected a problem on a GPU for the backend nccl, got {device}; pass "
                'device="cuda", or use the backend "gloo"'
            )
        else:
            self._wire = torch.device("cpu")
        if self.size > 1:
            self._watch = _watch(process_group, self.rank, self.size)

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        return self.size == 1

    # ---- a few words --------------------------------------------------------------------------

    def values(self, mine: Any) -> list[Any]:
        """What every rank gives, JSON, by rank."""
        if self.alone:
            return [mine]
        content = torch.frombuffer(bytearray(json.dumps(mine).encode()), dtype=torch.uint8)

        def exchange() -> list[Any]:
            lengths = self._numbers([len(content)])
            longest = max(length for (length,) in lengths)
            padded = torch.zeros(longest, dtype=torch.uint8, device=self._wire)
            padded[: len(content)] = content
            found = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(found, padded, group=self._group)
            texts = [t[:n].cpu().numpy().tobytes() for t, (n,) in zip(found, lengths, strict=True)]
            return [json.loads(text) for text in texts]

        return self._watched(exchange, "an exchange of words")

    def lowest(self, number: int) -> int:
        """The least of all ranks' numbers."""
        return min(self.values(number))

    def from_first(self, work: Callable[[], Any]) -> Any:
        """What ``work`` gives on the first rank, JSON, on all of them; and so with its errors."""
        if self.alone:
            return work()
        told: dict[str, Any] = {}
        error: Exception | None = None
        if self.rank == 0:
            try:
                told = {"value": work()}
            except Exception as raised:
                error, told = raised, in_words(raised)
        return self._or_raised(self.values(told)[0], error)

    def together(self, work: Callable[[], Result]) -> Result:
        """What ``work``, without exchanges, gives here; its error on any rank is raised on all."""
        if self.alone:
            return work()
        told, error = {}, None
        result: Any = None
        try:
            result = work()
        except Exception as raised:
            error, told = raised, in_words(raised)
        for words in self.values(told):
            self._or_raised({"value": None, **words}, error)
        return result

    @staticmethod
    def _or_raised(told: Mapping[str, Any], own: Exception | None) -> Any:
        if "error" not in told:
            return told["value"]
        raise from_words(told) if own is None else own

    def require_same(self, kind: str, columns: Tensor) -> None:
        """All ranks must be in the same product, with the same vectors.

        Raises
        ------
        RankFailed
            If they are not; says which rank does what.
        """
        if self.alone:
            return
        self._calls += 1
        flat = columns.detach().contiguous().flatten()
        whole = flat.view(torch.int32 if flat.element_size() == 4 else torch.int64)
        mine = [self._calls, sum(kind.encode()), columns.shape[-1], int(whole.sum())]
        places = self._watched(lambda: self._numbers(mine), f"product {self._calls} ({kind})")
        if any(place[:3] != mine[:3] for place in places):
            raise RankFailed(
                f"expected all ranks in one product, but rank {self.rank} is in product "
                f"{self._calls} ({kind} of {mine[2]}), and by rank they are in "
                f"{[place[0] for place in places]}; every rank has to make the same calls"
            )
        if any(place != mine for place in places):
            raise RankFailed(
                f"expected the same vectors on all ranks in product {self._calls} ({kind}), but "
                "they differ; use the same seeds, threads and kind of processor on every rank"
            )

    # ---- numbers ------------------------------------------------------------------------------

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

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What is raised inside is told to the other ranks."""
        try:
            yield
        except BaseException as error:
            if not self.alone:
                self._watch.tell(error)
            raise

    def wait_for_the_first_to_end(self, seconds: float) -> bool:
        """Whether the first rank has ended its process, waiting for so long at most."""
        return not self.alone and self._watch.wait_for_the_end_of(0, seconds)

    # ---- inside ---------------------------------------------------------------------------------

    def _watched(self, exchange: Callable[[], Result], what: str) -> Result:
        def work() -> Result:
            if self._wire.type != "cuda":
                return exchange()
            with torch.cuda.device(self._wire):
                result = exchange()
                torch.cuda.synchronize()  # or the wait would be elsewhere, and not be watched
            return result

        if self._wire.type == "cuda":
            torch.cuda.synchronize(self._wire)
        return self._watch.run(work, what)

    def _numbers(self, mine: list[int]) -> list[list[int]]:
        one = torch.tensor(mine, dtype=torch.int64, device=self._wire)
        found = [torch.empty_like(one) for _ in range(self.size)]
        dist.all_gather(found, one, group=self._group)
        return [numbers.tolist() for numbers in found]

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


# One for each process group, by name: its threads live as long as the process does.
_WATCHES: dict[str, tuple[dist.ProcessGroup, Watch]] = {}


def _watch(group: dist.ProcessGroup, rank: int, size: int) -> Watch:
    known, watch = _WATCHES.get(group.group_name, (None, None))
    if watch is None or known is not group:  # a later group may have an earlier one's name
        store = dist.PrefixStore(f"deepspec/{group.group_name}", group.get_group_store())
        watch = Watch(store, rank, size)
        _WATCHES[group.group_name] = (group, watch)
    return watch


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
