"""A trained classifier and the data its spectra are taken over."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from deepspec.arguments import shown
from deepspec.classifier.arguments import (
    as_flag,
    as_logit_memory,
    as_memory_budget,
    as_model,
    as_num_classes,
    as_plan,
    chosen_parameters,
)
from deepspec.classifier.batches import Batches
from deepspec.classifier.checks import (
    evaluate,
    require_repeatable,
)
from deepspec.classifier.dependence import require_dependence
from deepspec.classifier.device import available_device
from deepspec.classifier.labels import INTEGERS
from deepspec.classifier.logit_function import LogitFunction
from deepspec.classifier.output import Where, require_where
from deepspec.classifier.parameters import Patterns, parameter_space
from deepspec.classifier.precision import lowest_precision, refuse_autocast
from deepspec.classifier.remedies import explained, require_untouched
from deepspec.classifier.row_layout import RowLayout, require_class_dim
from deepspec.classifier.shares import Shares
from deepspec.classifier.snapshot import Snapshot
from deepspec.classifier.trees import pick
from deepspec.classifier.weights import MeanOver, RowWeights, require_mean_over
from deepspec.engine.distributed import as_group
from deepspec.engine.engine import Engine
from deepspec.engine.sharing import refuse_own_shares, share, take_from_first
from deepspec.losses import Loss
from deepspec.losses.rows import read_rows

# Rows times classes beyond this many bytes are not kept, but computed batch by batch.
LOGIT_MEMORY = 2**28


class Problem:
    """A trained net and the labelled data that its spectra are of.

    A row is what has a label: a sample, a token, a pixel. The loss is Σ_i w_i ℓ(f_i, t_i) over all
    rows, however batches are cut; by default the mean cross-entropy. θ is copied: the caller's
    modules, flags, buffers and gradients stay as they are. The model is evaluated in eval mode.

    Parameters
    ----------
    model
        Maps a batch of inputs to outputs (batch, …, C), a tensor or ``output.logits``.
    data
        ``(X, y)``, a Dataset or list of samples, or a DataLoader that does not shuffle; see
        :class:`deepspec.classifier.batches.Batches`. Labels are classes, or probabilities of them.
    num_classes
        C, to check the model against.
    batch_size
        Samples at a time (a DataLoader brings its own); results do not depend on it.
    dtype, device
        Where and in which precision to compute; by default as the model's parameters are.
    select, parameters
        What θ contains: ``select(name, parameter)``, or globs and regular expressions (``"re:…"``).
    memory_budget
        What may be kept between products: bytes (int) or a share of the free memory (float).
    logit_memory
        Bytes beyond which nothing of the size of rows × C is kept.
    verify
        Compare two passes, and derivatives with difference quotients, before any work: about six
        vectors of θ in float64 for a moment, nine at the first product with the Hessian.
    logits, class_dim
        Where logits are in the output (a key, an index or a function), and C in them if not last.
    loss
        A loss of PyTorch's that takes means, or a :class:`deepspec.losses.Loss` of one's own.
    row_weights, mean_over
        Weights of the labels' shape (a tensor, or a list by batch); or "sequences": means of means.
    group
        Processes of ``torch.distributed`` that share the products; see docs/distribution.md.

    >>> model = nn.Linear(2, 3)
    >>> problem = Problem(model, (torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1])))
    >>> problem.size, problem.num_rows, problem.num_classes
    (9, 5, 3)
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
        parameters: Patterns | None = None,
        memory_budget: int | float = 0.25,
        logit_memory: int = LOGIT_MEMORY,
        verify: bool = True,
        logits: Where = None,
        class_dim: int | None = None,
        loss: Loss | nn.Module | None = None,
        row_weights: Any = None,
        mean_over: MeanOver = "rows",
        group: ProcessGroup | None = None,
    ) -> None:
        memory_budget = as_memory_budget(memory_budget)
        self.logit_memory = as_logit_memory(logit_memory)
        num_classes = as_num_classes(num_classes)
        require_where(logits)
        require_class_dim(class_dim)
        require_mean_over(mean_over)
        model = as_model(model)
        verify = as_flag("verify", verify)
        self.space = parameter_space(model, chosen_parameters(model, select, parameters))
        reference = dict(model.named_parameters())[self.space.names[0]]
        self.dtype = reference.dtype if dtype is None else dtype
        if not isinstance(self.dtype, torch.dtype):
            raise TypeError(f"expected a torch.dtype such as torch.float64, got {shown(dtype)}")
        if self.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"expected torch.float32 or torch.float64 to compute in, got {self.dtype}; pass "
                "dtype=torch.float32"
            )
        self.device = available_device(device, reference.device)
        self._layout = RowLayout(class_dim=class_dim, flat=False)
        refuse_autocast(self.device)
        self.group = as_group(group, self.device)
        refuse_own_shares(data, self.group)
        self._batches = self.group.together(lambda: Batches(data, batch_size))
        self._shares: Shares | None = None
        weights = None if row_weights is None else RowWeights(row_weights)
        # Evaluation code often stands under inference mode, whose tensors allow no derivatives.
        with torch.inference_mode(False):
            self._snapshot = Snapshot(model, self.space, self.dtype, self.device, logits)
            self.parameters = self._snapshot.parameters
            take_from_first(self.group, {"θ": self.parameters, **self._snapshot.constants})
            version = self.parameters._version
            self._rows = self.group.together(
                lambda: read_rows(
                    self._unread(),
                    loss,
                    num_classes,
                    class_dim,
                    weights,
                    mean_over,
                    self.logit_memory,
                )
            )
            self._set_up(memory_budget, verify, version)

    def _set_up(self, memory_budget: int | float, verify: bool, version: int) -> None:
        rows = self._rows
        self.criterion, self.targets, self.weights = rows.criterion, rows.targets, rows.weights
        self.sequences = rows.sequences
        columns = rows.criterion.columns if rows.criterion.least_outputs == 1 else None
        self._layout = RowLayout(class_dim=self._layout.class_dim, columns=columns)
        _, function = next(self.functions())
        require_untouched(function, version)
        #: What the rounding of products is of: the dtype, or what the model casts to inside.
        self.precision = lowest_precision(function)
        if verify:
            again = partial(self._counted, None)
            self.group.together(
                lambda: require_repeatable(again(), rows.sketch, rows.same_targets, self.precision)
            )
        self._shares = share(self._batches, self._row_counts, self.group)
        if self._shares is not None:
            take_from_first(self.group, {str(i): part for i, part in enumerate(rows.sketch.parts)})
        self._memory_budget = memory_budget
        self.engine = self._new_engine()
        if verify:
            # Now, while no estimator holds vectors of its own.
            explained(self.engine.check, "differentiated", function)
            require_dependence((function for _, function in self.functions()), self.precision)

    def _new_engine(self) -> Engine:
        return Engine(
            self._own_functions,
            self.space,
            self.num_classes,
            self.dtype,
            self.device,
            self._memory_budget,
            self._halve,
            torch.finfo(self.precision).eps,
            None if self.keeps_logits else self.logit_memory,
            lambda: next(self.functions())[1],
            self.group,
            self._shares,
        )

    def _unread(self, shares: Shares | None = None) -> Iterator[tuple[LogitFunction, Tensor]]:
        """A pass over the data as they come, or one share: each batch's function and labels."""
        first = 0 if shares is None else shares.first_sample
        start, some = (0, None) if shares is None else (shares.mine.start, shares.mine)
        for number, (inputs, labels) in enumerate(self._batches.some(some), start):
            function = self._snapshot.function(
                inputs, len(labels), self._layout, first=first, number=number
            )
            yield function, labels.to(self.device)
            first += len(labels)

    def _counted(self, shares: Shares | None) -> Iterator[tuple[slice, LogitFunction, Tensor]]:
        """A pass over the rows that count, or one share, without samples that have none."""
        start = 0 if shares is None else shares.rows[shares.rank].start
        for function, labels in self._unread(shares):
            kept, mask = self._rows.kept(function.first, labels)
            if kept is not None:
                inputs = pick(function.inputs, function.samples, kept)
                function, labels = function.of(inputs, len(kept), mask), labels[kept]
            elif mask is not None:
                function = function.of(function.inputs, function.samples, mask)
            rows = function.rows
            if rows:
                yield slice(start, start + rows), function, labels
            start += rows

    def functions(self, most: int | None = None) -> Iterator[tuple[slice, LogitFunction]]:
        """A pass over the data: each batch's rows, and its logits as a function of θ.

        With ``most``, batches are cut into parts of at most so many samples.
        """
        return self._pass(None, most)

    def _own_functions(self, most: int | None = None) -> Iterator[tuple[slice, LogitFunction]]:
        """The same of this rank's share."""
        return self._pass(self._shares, most)

    def _row_counts(self) -> list[int]:
        """How many rows of each batch count."""
        sizes = self._batches.sizes()
        if self.has_one_row_a_sample and sum(sizes) == self.num_rows:
            return sizes
        counts = [0] * len(sizes)
        for rows, function, _ in self._counted(None):
            counts[function.number] = rows.stop - rows.start
        return counts

    def _pass(
        self, shares: Shares | None, most: int | None
    ) -> Iterator[tuple[slice, LogitFunction]]:
        for rows, function, _ in self._counted(shares):
            if most is None or function.samples <= most:
                yield rows, function
                continue
            start = rows.start
            for first in range(0, function.samples, most):
                stop = min(first + most, function.samples)
                part = function.pick(torch.arange(first, stop, device=self.device))
                yield slice(start, start + part.rows), part
                start += part.rows

    def restricted(self, names: Sequence[str]) -> Problem:
        """The same net on the same data with fewer tensors in θ: G of it is a diagonal block of G.

        Nothing is copied but θ's chosen entries, and nothing is checked again.

        Raises
        ------
        ValueError
            If a name is not in θ.

        >>> problem = Problem(nn.Linear(2, 3), (torch.eye(2), torch.tensor([0, 1])))
        >>> problem.restricted(["bias"]).size
        3
        """
        missing = sorted(set(names) - set(self.space.names))
        if missing or not names:
            raise ValueError(
                f"expected names of tensors in θ, got {', '.join(missing) or 'none'}; θ has "
                f"{', '.join(self.space.names)}"
            )
        other = copy.copy(self)
        other._snapshot = self._snapshot.restricted(names)
        other.space, other.parameters = other._snapshot.space, other._snapshot.parameters
        other.engine = other._new_engine()
        # A route that is right for all of θ is right for a part of it.
        if "forward mode" in self.plan:
            other.engine.autotuner.plan["forward mode"] = self.plan["forward mode"]
        return other

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

    def __repr__(self) -> str:
        data = f"{self.num_samples:,} samples, {self.num_classes:,} classes"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"Problem({self.size:,} parameters, {data}, {dtype} on {self.device})"

    @property
    def num_rows(self) -> int:
        """R, the number of rows that count."""
        return len(self.weights)

    @property
    def num_samples(self) -> int:
        """n, the number of samples that have such rows: sequences, images; R where each is one."""
        return self.num_rows if self._rows.is_flat else len(self.sequences.unique())

    @property
    def has_one_row_a_sample(self) -> bool:
        """Whether row i is sample i."""
        return self._rows.is_flat

    @property
    def num_classes(self) -> int:
        """C, the number of outputs."""
        return self._rows.num_classes

    @property
    def keeps_logits(self) -> bool:
        """Whether arrays of rows × classes are kept, or logits computed batch by batch."""
        return self._rows.sketch.keep

    @property
    def logits(self) -> Float[Tensor, "R C"]:
        """The outputs of all rows, float64; computed anew where they are too large to keep."""
        if self.keeps_logits:
            return self._rows.sketch.all()
        return torch.cat([evaluate(function).double() for _, function in self.functions()])

    @property
    def labels(self) -> Int[Tensor, " R"]:
        """The class of each row; of soft labels the most probable one.

        Raises
        ------
        ValueError
            If the loss has no classes.
        """
        self.require_classes()
        return self._labels

    @cached_property
    def _labels(self) -> Int[Tensor, " R"]:
        return self.targets.argmax(dim=1) if self.has_soft_labels else self.targets

    @property
    def has_soft_labels(self) -> bool:
        """Whether targets are probabilities: class structure then takes the most probable class."""
        return self.criterion.has_classes and self.targets.is_floating_point()

    def require_classes(self) -> None:
        """Refuse to speak of classes where the loss has none.

        Raises
        ------
        ValueError
            With what class structure needs.
        """
        if not self.criterion.has_classes:
            raise ValueError(
                f"expected a loss with one class for each row, got {self.criterion!r:.80}; class "
                "structure needs cross-entropy (or BCEWithLogitsLoss of one logit); G, Hess, their "
                "spectra and traces do not: GaussNewton, Hessian, top_eigenpairs, spectral_density"
            )

    @cached_property
    def log_probabilities(self) -> Float[Tensor, "R C"]:
        """log softmax of the logits, float64."""
        self.require_classes()
        return torch.log_softmax(self.logits, dim=1)

    @cached_property
    def probabilities(self) -> Float[Tensor, "R C"]:
        """softmax of the logits, float64."""
        self.require_classes()
        return torch.softmax(self.logits, dim=1)

    @property
    def class_counts(self) -> Int[Tensor, " C"]:
        """The number of rows of each class; zeros are allowed."""
        return torch.bincount(self.labels, minlength=self.num_classes)

    def states(
        self, rows: slice, outputs: Callable[[], Float[Tensor, "b C"]] | None = None
    ) -> Float[Tensor, "b C"]:
        """What the loss's Hessian takes of some rows (probabilities, for cross-entropy), float64.

        ``outputs`` gives the rows' outputs where they are not kept.
        """
        if self.keeps_logits:
            return self._states[rows]
        if outputs is None:
            return self.criterion.state(self.logits[rows])
        return self.criterion.state(outputs().double())

    @cached_property
    def _states(self) -> Float[Tensor, "R C"]:
        return self.probabilities if self.criterion.has_classes else self.logits

    def chunks(self) -> Iterator[tuple[slice, Float[Tensor, "b C"]]]:
        """Rows and their outputs in float64, as many at a time as the logit memory allows."""
        if self.keeps_logits:
            yield slice(0, self.num_rows), self.logits
            return
        few = max(1, self.logit_memory // (32 * self.num_classes))
        for rows, function in self.functions():
            outputs = evaluate(function)
            for start in range(0, len(outputs), few):
                part = outputs[start : start + few].double()
                yield slice(rows.start + start, rows.start + start + len(part)), part

    @property
    def row_losses(self) -> Float[Tensor, " R"]:
        """ℓ(f_i, t_i) of each row, in nats for cross-entropy; float64."""
        return torch.cat(
            [self.criterion.value(outputs, self.targets[rows]) for rows, outputs in self.chunks()]
        )

    @property
    def loss(self) -> float:
        """The loss Σ_i w_i ℓ_i: that of PyTorch's mean."""
        losses = self.row_losses
        if self._rows.is_plain:
            return float(losses.mean())
        return float(losses @ self.weights)

    @property
    def loss_error(self) -> float:
        """The standard error of the loss, sequences being independent and rows within not."""
        excess = self.weights * (self.row_losses - self.loss)
        _, index = self.sequences.unique(return_inverse=True)
        count = int(index.max()) + 1
        if count < 2:
            return float("nan")
        sums = excess.new_zeros(count).index_add_(0, index, excess)
        return float((sums.square().sum() * count / (count - 1)).sqrt())

    @property
    def error_rate(self) -> float:
        """The share of rows, by weight, whose largest logit is not their label's."""
        labels = self.labels
        wrong = torch.cat([z.argmax(dim=1) != labels[rows] for rows, z in self.chunks()]).double()
        if self._rows.is_plain:
            return float(wrong.mean())
        return float(wrong @ self.weights / self.weights.sum())

    def hessian_targets(self, rows: slice) -> Tensor:
        """The targets of some rows as the loss's Hessian takes them; a softmax's needs none."""
        targets = self.targets[rows]
        if self.criterion.has_classes:
            return targets
        return self.criterion.prepared(targets, self.num_classes, torch.float64)

    def residuals_of(self, outputs: Float[Tensor, "b C"], rows: slice) -> Float[Tensor, "b C"]:
        """∂ℓ/∂f of some rows from their outputs, in their precision."""
        targets = self.criterion.prepared(self.targets[rows], self.num_classes, outputs.dtype)
        return self.criterion.residual(outputs, targets)

    @property
    def residuals(self) -> Float[Tensor, "R C"]:
        """∂ℓ_i/∂f of each row, p_i − t_i for cross-entropy; float64."""
        return torch.cat([self.residuals_of(outputs, rows) for rows, outputs in self.chunks()])

    def one_hot(self, labels: Int[Tensor, " b"]) -> Float[Tensor, "b C"]:
        """e_y for each label, float64."""
        whole = isinstance(labels, Tensor) and labels.dtype in INTEGERS
        if not whole or labels.ndim != 1:
            raise TypeError(
                f"expected labels as an integer tensor of shape (b,), got {shown(labels)}; for "
                "example problem.labels"
            )
        return torch.nn.functional.one_hot(labels.long(), self.num_classes).double()

    def gradient(self) -> Float[Tensor, " p"]:
        """The gradient of the loss, Σ_i w_i J_iᵀ ∂ℓ/∂f_i."""

        def coefficients(
            rows: slice, outputs: Callable[[], Float[Tensor, "b C"]]
        ) -> Float[Tensor, "b C"]:
            found = self.logits[rows] if self.keeps_logits else outputs().double()
            return self.residuals_of(found, rows) * self.weights[rows, None]

        return self.engine.pull(coefficients)

    def fingerprint(self) -> dict[str, str | int | float]:
        """What tells this problem from another one: sizes, and a hash of θ, outputs and labels."""
        digest = hashlib.sha256(",".join(self.space.names).encode())
        tensors = [self.parameters, self._rows.sketch.all(), self.targets]
        if not self._rows.is_plain:
            digest.update(self.criterion.fingerprint().encode())
            tensors.append(self.weights)
        for tensor in tensors:
            digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy().data)
        return {
            "parameters": self.size,
            "samples": self.num_rows,
            "classes": self.num_classes,
            "dtype": str(self.dtype),
            "content": digest.hexdigest(),
        }
