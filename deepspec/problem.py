"""A trained classifier and the data its spectra are taken over."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import cached_property
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from deepspec.classifier.arguments import (
    as_flag,
    as_memory_budget,
    as_model,
    as_num_classes,
    as_plan,
    as_selection,
)
from deepspec.classifier.batches import Batches
from deepspec.classifier.checks import logits_and_labels, require_repeatable
from deepspec.classifier.dependence import require_dependence
from deepspec.classifier.device import available_device
from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.output import Where, require_where
from deepspec.classifier.parameters import parameter_space
from deepspec.classifier.precision import lowest_precision
from deepspec.classifier.remedies import explained
from deepspec.classifier.softmax import softmax_residual
from deepspec.classifier.trees import move
from deepspec.engine.distributed import as_group
from deepspec.engine.engine import Engine, refuse_autocast
from deepspec.engine.sharing import refuse_own_shares, share, take_from_first


class Problem:
    """A trained classifier and the labelled data that its spectra are of.

    Its logits f(θ) ∈ R^(n×C) on n samples, and products with ∂f/∂θ.

    The parameters are copied when the problem is made: training on does not change it, and the
    caller's modules, flags, buffers and gradients stay as they are. Samples weigh 1/n each,
    however the batches are cut. The model is evaluated in eval mode.

    Parameters
    ----------
    model
        Maps a batch of inputs to logits (batch, C), as a tensor or as ``output.logits``.
        Compiled models are taken as they were before ``torch.compile``.
    data
        ``(X, y)`` tensors or arrays, a Dataset or list of samples, or a DataLoader that does not
        shuffle; see :class:`deepspec.classifier.batches.Batches`.
    num_classes
        C, to check the model against; by default what the model returns.
    batch_size
        Samples processed at a time (a DataLoader brings its own). The results do not depend
        on it; memory does.
    dtype, device
        Where and in which precision to compute; by default as the model's parameters are.
    select
        ``select(name, parameter)`` says which trainable parameters θ contains; default all.
    memory_budget
        What may be kept between products: bytes (int) or a share of the free memory (float).
        With 0 only one batch's graph exists at a time. Results agree to rounding.
    verify
        Compare two passes over the data, and forward with reverse mode, and see that the logits
        depend on every tensor of θ, before any work.
    logits
        Where the logits are in what the model returns, if neither that itself nor ``.logits``: a
        key, an index, or a function of the output.
    group
        A process group of ``torch.distributed`` that the samples are spread over
        (docs/distribution.md). Every rank makes the same problem and the same calls, and gets the
        same results; θ is taken from the first rank. Shares are whole batches: with fewer batches
        than ranks some have nothing to do.
    sharded
        That ``data`` are this rank's own samples, the first rank's coming first, rather than all.

    >>> model = nn.Linear(2, 3)
    >>> problem = Problem(model, (torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1])))
    >>> problem.size, problem.num_samples, problem.num_classes
    (9, 5, 3)

    Raises
    ------
    ValueError
        On anything that would make the spectra wrong: see :mod:`deepspec.classifier.checks`.
    TypeError
        If the data are in none of the accepted forms.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Any,
        *,
        num_classes: int | None = None,
        batch_size: int = 1024,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
        select: Callable[[str, nn.Parameter], bool] | None = None,
        memory_budget: int | float = 0.25,
        verify: bool = True,
        logits: Where = None,
        group: ProcessGroup | None = None,
        sharded: bool = False,
    ) -> None:
        memory_budget = as_memory_budget(memory_budget)
        num_classes = as_num_classes(num_classes)
        require_where(logits)
        model = as_model(model)
        verify = as_flag("verify", verify)
        self.space = parameter_space(model, as_selection(select))
        reference = dict(model.named_parameters())[self.space.names[0]]
        self.dtype = reference.dtype if dtype is None else dtype
        if not isinstance(self.dtype, torch.dtype):
            raise TypeError(f"expected a torch.dtype such as torch.float64, got {dtype!r}")
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"expected torch.float32 or torch.float64 to compute in, got {self.dtype}; pass "
                "dtype=torch.float32"
            )
        self.device = available_device(device, reference.device)
        self._model, self._where = model, logits
        refuse_autocast(self.device)
        self.group = as_group(group, self.device)
        refuse_own_shares(data, self.group)
        self._batches = self.group.together(lambda: Batches(data, batch_size))
        self._shares = None if self.group.alone else share(self._batches, self.group, sharded)
        # Evaluation code often stands under inference mode, whose tensors allow no derivatives.
        with torch.inference_mode(False):
            self._set_up(model, num_classes, memory_budget, verify)

    def _set_up(
        self, model: nn.Module, num_classes: int | None, memory_budget: int | float, verify: bool
    ) -> None:
        self._snapshot(model)
        take_from_first(self.group, {"θ": self.parameters, **self._constants})
        mine = self.group.together(lambda: self._evaluated(num_classes))
        self.logits, self.labels = map(self.group.joined, mine or (None, None))
        function = self._first_function()
        #: What the rounding of products is of: the dtype, or what the model casts to inside.
        self.precision = lowest_precision(function)
        if verify:
            self.group.together(lambda: self._require_repeatable(mine))
        self.engine = Engine(
            self._own_functions,
            self.space,
            self.num_classes,
            self.dtype,
            self.device,
            memory_budget,
            self._halve,
            torch.finfo(self.precision).eps,
            self._first_function,
            self.group,
            self._shares,
        )
        if verify:
            # Now, while no estimator holds vectors of its own.
            explained(self.engine.check, "differentiated", function)
            first, group = () if self.group.alone else (function,), self.group
            require_dependence(
                chain(first, (function for _, function in self._own_functions())),
                self.precision,
                lambda missing: set.intersection(*map(set, group.values(sorted(missing)))),
            )

    def _evaluated(self, num_classes: int | None) -> tuple[Tensor, Tensor] | None:
        """Logits and labels of this rank's samples; ``None`` where it has none."""
        if self._shares is not None and not self._shares.mine:
            return None
        return logits_and_labels(self._labelled(), num_classes)

    def _require_repeatable(self, mine: tuple[Tensor, Tensor] | None) -> None:
        if mine is not None:
            require_repeatable(self._labelled(), *mine, self.precision)

    def _snapshot(self, model: nn.Module) -> None:
        def copy(tensor: Tensor) -> Tensor:
            dtype = self.dtype if tensor.is_floating_point() else tensor.dtype
            return tensor.detach().to(self.device, dtype, copy=True)

        everything = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        # One flat tensor holds θ; the named parameters are views of it.
        self.parameters = self.space.flatten(
            {
                name: everything[name].detach().to(self.device, self.dtype)
                for name in self.space.names
            }
        )
        self._parameters = self.space.unflatten(self.parameters)
        self._constants = {
            name: copy(tensor)
            for name, tensor in everything.items()
            if name not in self._parameters
        }

    def _labelled(self) -> Iterator[tuple[LogitFunction, Tensor]]:
        """A pass over this rank's data: each batch's logit function and labels."""
        shares = self._shares
        first = 0 if shares is None else shares.rows[shares.rank].start
        start = 0 if shares is None else shares.mine.start
        for number, (inputs, labels) in enumerate(self._batches, start):
            yield self._function(inputs, len(labels), first, number), labels.to(self.device)
            first += len(labels)

    def _function(self, inputs: Any, samples: int, first: int, number: int) -> LogitFunction:
        return LogitFunction(
            self._model,
            self.space,
            self._parameters,
            self._constants,
            move(inputs, self.device, self.dtype),
            samples,
            logits=self._where,
            first=first,
            number=number,
        )

    def _first_function(self) -> LogitFunction:
        """The first batch of all the data; of data brought by each rank, its own first."""
        first = self._batches.first()
        assert first is not None
        return self._function(first[0], len(first[1]), 0, 0)

    def functions(self) -> Iterator[tuple[slice, LogitFunction]]:
        """A pass over the data: each batch's rows, and its logits as a function of θ.

        Raises
        ------
        RuntimeError
            If the data are spread over several processes, each of which has only some.
        """
        if not self.group.alone:
            raise RuntimeError(
                f"expected a problem of one process, got one of {self.group.size}, and what was "
                "asked for is not done by several; make the problem without group="
            )
        return self._own_functions()

    def _own_functions(self) -> Iterator[tuple[slice, LogitFunction]]:
        """A pass over this rank's batches."""
        for function, labels in self._labelled():
            yield slice(function.first, function.first + len(labels)), function

    def _halve(self) -> bool:
        largest = self._batches.limit or max(f.samples for _, f in self.functions())
        if largest > 1:
            self._batches.limit = min(largest, self.num_samples) // 2 or 1
        return largest > 1

    # ---- what the data say ------------------------------------------------------------------

    @property
    def plan(self) -> dict[str, str | int]:
        """How products are computed: choices made by measurement, for the manifest.

        Assign a plan of the same net and data to make the same choices again, bit for bit. That
        of another version of PyTorch is decided anew, with a warning; that of another net is a
        ValueError.
        """
        return self.engine.plan()

    @plan.setter
    def plan(self, plan: dict[str, str | int]) -> None:
        self.engine.follow(as_plan(plan))

    @property
    def size(self) -> int:
        """p, the number of parameters."""
        return self.space.size

    @property
    def num_samples(self) -> int:
        """n."""
        return self.logits.shape[0]

    @property
    def num_classes(self) -> int:
        """C."""
        return self.logits.shape[1]

    @cached_property
    def log_probabilities(self) -> Float[Tensor, "n C"]:
        """log softmax of the logits, float64."""
        return torch.log_softmax(self.logits, dim=1)

    @cached_property
    def probabilities(self) -> Float[Tensor, "n C"]:
        """softmax of the logits, float64."""
        return torch.softmax(self.logits, dim=1)

    @property
    def class_counts(self) -> Int[Tensor, " C"]:
        """The number of samples of each class; zeros are allowed."""
        return torch.bincount(self.labels, minlength=self.num_classes)

    @property
    def loss(self) -> float:
        """The mean cross-entropy, in nats."""
        direct = -self.log_probabilities.gather(1, self.labels[:, None])
        # Near certainty 1 − p is accurate, and the logarithm of p is not.
        certain = -torch.log1p(self.residuals.gather(1, self.labels[:, None]).clamp_min(-0.5))
        return float(torch.where(direct < 0.5, certain, direct).mean())

    @property
    def error_rate(self) -> float:
        """The share of samples whose largest logit is not their label's."""
        return float((self.logits.argmax(dim=1) != self.labels).double().mean())

    @property
    def residuals(self) -> Float[Tensor, "n C"]:
        """p_i − y_i, the derivative of each sample's loss by its logits, float64."""
        return softmax_residual(self.probabilities, self.one_hot(self.labels))

    def one_hot(self, labels: Int[Tensor, " b"]) -> Float[Tensor, "b C"]:
        """e_y for each label, float64."""
        if not isinstance(labels, Tensor) or labels.ndim != 1 or labels.is_floating_point():
            raise TypeError(
                f"expected labels as an integer tensor of shape (b,), got {labels!r:.60}; for "
                "example problem.labels"
            )
        return torch.nn.functional.one_hot(labels, self.num_classes).double()

    def gradient(self) -> Float[Tensor, " p"]:
        """The gradient of the mean loss, Jᵀ(p − y)/n."""
        return self.engine.vjp(self.residuals[:, :, None] / self.num_samples)[:, 0]

    def fingerprint(self) -> dict[str, str | int | float]:
        """What tells this problem from another one: sizes, and a hash of θ, outputs and labels."""
        digest = hashlib.sha256(",".join(self.space.names).encode())
        for tensor in (self.parameters, self.logits, self.labels):
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
        return {
            "parameters": self.size,
            "samples": self.num_samples,
            "classes": self.num_classes,
            "dtype": str(self.dtype),
            "content": digest.hexdigest(),
        }
