"""The processes of one group, and a few words between them: who they are, and what they decide."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from deepspec.engine.errors import RankFailed, from_words, in_words
from deepspec.engine.watching import Watch

Result = TypeVar("Result")


class Members:
    """Ranks that tell each other JSON, and fail together.

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

    >>> Members().size, Members().values({"n": 3})
    (1, [{'n': 3}])
    """

    def __init__(
        self,
        process_group: dist.ProcessGroup | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device = torch.device("cpu") if device is None else device
        self.rank, self.size, self.backend = 0, 1, ""
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

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What is raised inside is told to the other ranks."""
        try:
            yield
        except BaseException as error:
            if not self.alone:
                self._watch.status = 2  # as the command line ends when something is wrong
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


# One for each process group, by name: its threads live as long as the process does.
_WATCHES: dict[str, tuple[dist.ProcessGroup, Watch]] = {}


def _watch(group: dist.ProcessGroup, rank: int, size: int) -> Watch:
    known, watch = _WATCHES.get(group.group_name, (None, None))
    if watch is None or known is not group:  # a later group may have an earlier one's name
        store = dist.PrefixStore(f"deepspec/{group.group_name}", group.get_group_store())
        watch = Watch(store, rank, size)
        _WATCHES[group.group_name] = (group, watch)
    return watch
