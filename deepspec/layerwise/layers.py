"""The layers of a net in the order they are used, each with its arrays."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import get_args
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.class_structure.array import ClassArray, gradients
from deepspec.class_structure.cells import Convention
from deepspec.layers.normalization import NormalizationFormula
from deepspec.layers.recording import Layer as LayerWithFormula
from deepspec.layerwise.arrays import error_array, feature_array
from deepspec.layerwise.cfac import ClassKronecker, cfac
from deepspec.layerwise.collapse import (
    NeuralCollapse,
    makes,
    neural_collapse,
    neural_collapse_inside,
)
from deepspec.layerwise.finding import find_layers
from deepspec.layerwise.kfac import ekfac, kfac
from deepspec.layerwise.kfoc import kfoc
from deepspec.layerwise.mean_products import MeanProducts, mean_products
from deepspec.layerwise.records import LayerBatch, Mask, Records, Shared
from deepspec.layerwise.weights import LayerWeight
from deepspec.operators import KroneckerBasis, KroneckerProduct
from deepspec.operators.on_problem import require_problem
from deepspec.problem import Problem


class Layers:
    """The layers of a net in the order they are used, each with its features and errors.

    ``layers[0]`` or ``layers["features.3"]``. Papyan (2020) §7: class structure is made layer by
    layer, in features, backpropagated errors and weights. A layer is a module that is called once
    and whose parameters in θ have a formula (Linear, Conv1d, Conv2d, Embedding, normalisations);
    ``left_out`` says of every other module with parameters in θ why it is none, and asking for it
    raises.

    Parameters
    ----------
    problem
        A net and its data.
    shared
        How positions that share a weight (of images, of sequences) count in the second moments of
        features and errors, by Eschenhagen et al. (2023): "reduce" (a sample's inputs are
        averaged, its errors summed) or "expand" (each position is a replicate). Gradients are exact
        in both, and layers on plain vectors the same.
    mask
        Which positions are no padding; see :class:`deepspec.layerwise.records.Records`. An
        "attention_mask" among the inputs is used by itself.
    convention
        Which means of errors and gradients are taken: "jmlr2020" or "icml2019".

    Raises
    ------
    TypeError
        If it is no problem.
    ValueError
        If an option is unknown, or no module of the net is a layer.

    >>> from torch import nn
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    >>> layers = Layers(Problem(net, (torch.eye(2).double(), torch.tensor([0, 1]))))
    >>> layers.names, layers["2"].features
    (('0', '2'), ClassArray(2 samples of 2 classes, vectors of 3))
    """

    def __init__(
        self,
        problem: Problem,
        *,
        shared: Shared = "reduce",
        mask: Mask = None,
        convention: Convention = "jmlr2020",
    ) -> None:
        require_problem(problem)
        for name, value, kind in (
            ("shared", shared, Shared),
            ("convention", convention, Convention),
        ):
            if value not in get_args(kind):
                choices = " or ".join(f'"{choice}"' for choice in get_args(kind))
                raise ValueError(f"expected {name} as {choices}, got {value!r}")
        _require_samples(problem)
        self.problem, self.shared, self.convention = problem, shared, convention
        found = find_layers(problem)
        #: Why each other module with parameters in θ is no layer.
        self.left_out = found.left_out
        self.names = tuple(layer.name for layer in found.layers)
        self._found = found.layers
        self._records = Records(problem, found.layers, mask)
        # Layers that somebody holds, with what they computed; nothing is kept alive here.
        self._known: WeakValueDictionary[int, Layer] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Layer]:
        return (self[place] for place in range(len(self)))

    def __getitem__(self, key: int | str) -> Layer:
        place = self._place(key)
        layer = self._known.get(place)
        if layer is None:
            layer = Layer(self, place, self._found[place], self._records)
            self._known[place] = layer
        return layer

    def __repr__(self) -> str:
        kinds = [f"{name} ({type(layer.module).__name__})" for name, layer in self._pairs()]
        shown = kinds if len(kinds) <= 6 else [*kinds[:3], "…", *kinds[-2:]]
        out = f"; left out: {', '.join(self.left_out)}" if self.left_out else ""
        return f"Layers({len(self)}: {', '.join(shown)}{out})"

    def _pairs(self) -> Iterator[tuple[str, LayerWithFormula]]:
        return zip(self.names, self._found, strict=True)

    def _place(self, key: object) -> int:
        if isinstance(key, str):
            if key in self.left_out:
                raise ValueError(
                    f"expected a layer with a formula, but {key}: {self.left_out[key]}"
                )
            if key not in self.names:
                raise KeyError(
                    f"expected a layer's name, one of {', '.join(self.names)}; got {key}"
                )
            return self.names.index(key)
        if not isinstance(key, int) or isinstance(key, bool):
            raise TypeError(f"expected a layer's number or name, got {type(key).__name__}")
        if not -len(self) <= key < len(self):
            raise IndexError(f"expected a layer in 0..{len(self) - 1}, got {key}")
        return key % len(self)


class Layer:
    """One layer of a net on the problem's data; made by :class:`Layers`.

    Attributes
    ----------
    name, kind
        Of the module: its name in the net, and its class's.
    place
        Its number in the order of use.
    problem
        The whole net and its data.
    parameter_names
        Its tensors in θ, in θ's order.
    width_in, width_out
        d_in of features (a convolution's are patches) and d_out of errors.
    """

    def __init__(
        self, layers: Layers, place: int, found: LayerWithFormula, records: Records
    ) -> None:
        self.name, self.place = layers.names[place], place
        self.kind = type(found.module).__name__
        self.shared, self.convention = layers.shared, layers.convention
        self.problem = layers.problem
        self.parameter_names = self.problem.space.restricted(found.names).names
        self.width_in, self.width_out, self.positions = records.widths[place]
        self._found, self._records = found, records
        self._alone = len(layers) == 1

    def __repr__(self) -> str:
        entries = self.problem.space.restricted(self.parameter_names).size
        shared = f", {self.positions:,} positions ({self.shared})" if self.positions > 1 else ""
        return (
            f"Layer({self.name!r}: {self.kind} {self.width_in:,} → {self.width_out:,}{shared}, "
            f"{entries:,} parameters)"
        )

    # ---- arrays -------------------------------------------------------------------------------

    @cached_property
    def features(self) -> ClassArray:
        """Inputs h_i with weight 1/n: second moment H (Papyan 2020, §7.4).

        A convolution's are patches, an embedding's one-hot tokens, a normalisation's the
        normalised values. Without the 1 that a bias is the weight of.
        """
        return feature_array(self._records, self.place, self.shared, self.name)

    @cached_property
    def errors(self) -> ClassArray:
        """δ_{i,c'} = ∂ℓ(f_i, e_c')/∂(output) with weight p_{i,c'}/n: second moment Δ (§7.7)."""
        return error_array(self._records, self.place, self.shared, self.name, self.convention)

    @cached_property
    def gradients(self) -> ClassArray:
        """The layer's share of g_{i,c'}, Σ_t h_{i,t} ⊗ δ_{i,c',t}: second moment G^l (§7.3).

        On the layer's parameters in θ, flattened as there: a diagonal block of G.
        """
        return gradients(self.own, self.convention)

    @cached_property
    def own(self) -> Problem:
        """The same net and data with θ only the layer's parameters."""
        return self.problem.restricted(self.parameter_names)

    def batches(self) -> Iterator[LayerBatch]:
        """Inputs and errors of the samples, batch by batch: a new pass at each call."""
        return self._records.batches(self.place)

    # ---- measures -----------------------------------------------------------------------------

    @property
    def weight(self) -> LayerWeight:
        """The weight (out, in), with ``knock_out(weight_decay)`` against its class part (§7.13).

        Raises
        ------
        ValueError
            If there is none: of a normalisation, or a convolution in groups.
        """
        return LayerWeight.of(self)

    def mean_products(self) -> MeanProducts:
        """How well h_c ⊗ δ_{c,c'} gives the mean gradients g_{c,c'} (§7.12).

        Raises
        ------
        ValueError
            If the layer's weight is no matrix.
        """
        return mean_products(self)

    def neural_collapse(self) -> NeuralCollapse:
        """NC1–NC4 of the layer's inputs (Papyan, Han, Donoho 2020), averaged over positions.

        For the layer that makes the logits ``nc3`` and ``nc4`` are the paper's; for hidden layers
        they are what :func:`deepspec.layerwise.collapse.neural_collapse_inside` states.

        Raises
        ------
        ValueError
            If fewer than two classes have samples.
        """
        rows = [batch.feature_rows("reduce").vectors for batch in self.batches()]
        features, problem = torch.cat(rows), self.problem
        weight, bias = self._tensor("weight"), self._tensor("bias")
        if weight is not None:
            weight = self._found.formula.matrix(weight)
        if weight is not None and makes(problem.logits, features, weight, bias):
            return neural_collapse(features, problem.labels, weight, bias)
        chosen = problem.logits.argmax(dim=1)
        return neural_collapse_inside(features, problem.labels, weight, chosen)

    def kfac(self, bias: bool = False) -> KroneckerProduct:
        """Δ ⊗ H on the weight, flattened row by row; see :func:`deepspec.layerwise.kfac.kfac`.

        With ``bias`` on (out, in + 1), whose last column is the bias.

        Raises
        ------
        ValueError
            If θ does not have the weight (or the bias that is asked for), or it is no matrix.
        """
        self.require_kronecker(bias)
        return kfac(self.batches, self.shared, bias=bias)

    def cfac(
        self, bias: bool = False, labels: Int[Tensor, " n"] | None = None, seed: int = 0
    ) -> ClassKronecker:
        """Σ_c (n_c/n) Δ_c ⊗ H_c, as :meth:`kfac`; see :func:`deepspec.layerwise.cfac.cfac`.

        Other ``labels`` make it a null: groups that are no classes.
        """
        self.require_kronecker(bias)
        return cfac(self.batches, self.shared, bias=bias, labels=labels, seed=seed)

    def ekfac(self, bias: bool = False) -> KroneckerBasis:
        """The diagonal of G^l in KFAC's eigenbasis; see :func:`deepspec.layerwise.kfac.ekfac`."""
        self.require_kronecker(bias)
        return ekfac(self.batches, self.shared, bias=bias)

    def kfoc(self, bias: bool = False, seed: int = 0) -> KroneckerProduct:
        """The Kronecker product nearest to G^l; see :func:`deepspec.layerwise.kfoc.kfoc`."""
        self.require_kronecker(bias)
        return kfoc(self.batches, self.shared, bias=bias, seed=seed)

    # ---- what the layer is --------------------------------------------------------------------

    @property
    def weight_in_theta(self) -> bool:
        """Whether θ has the layer's weight."""
        return self._found.formula.weight

    @property
    def bias_in_theta(self) -> bool:
        """Whether θ has the layer's bias."""
        return self._found.formula.bias

    @property
    def normalizes(self) -> bool:
        """Whether it is a normalisation: a factor and a shift for each channel."""
        return isinstance(self._found.formula, NormalizationFormula)

    @property
    def groups(self) -> int:
        """Groups of channels that do not mix: of a convolution, or every normalised channel."""
        return self.width_in if self.normalizes else int(getattr(self._found.formula, "groups", 1))

    @cached_property
    def matrix(self) -> Float[Tensor, "o i"]:
        """The weight as a matrix from inputs to outputs, whether or not θ has it.

        Raises
        ------
        ValueError
            If there is none: of a normalisation, or a convolution in groups.
        """
        weight = self._tensor("weight")
        found = None if weight is None else self._found.formula.matrix(weight)
        if found is None:
            raise ValueError(
                f"expected a layer whose weight is one matrix, but {self.name} is "
                + (
                    "a normalisation"
                    if self.normalizes
                    else f"a convolution in {self.groups} groups"
                )
            )
        return found

    def _tensor(self, name: str) -> Tensor | None:
        """The module's tensor as the problem has it, if there is one."""
        _, function = next(self.problem.functions())
        tensors = {**function.constants, **function.parameters}
        return tensors.get(self._found.tensor_name(name))

    @property
    def has_matrix(self) -> bool:
        """Whether θ has its weight, and that is one matrix from inputs to outputs."""
        weight = self._tensor("weight") if self.weight_in_theta else None
        return weight is not None and self._found.formula.matrix(weight) is not None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of its numbers has to know, in sentences; mostly nothing.

        With more classes than dimensions no class means can be outliers (Papyan 2020, §9.2).
        """
        classes, found = self.problem.num_classes, []
        for what, width in (("inputs", self.width_in), ("errors", self.width_out)):
            if width < classes:
                found.append(
                    f"the {what} of {self.name} have {width} dimensions, fewer than the {classes} "
                    f"classes: {classes} outliers are impossible there, class means are not"
                )
        if self._alone:
            found.append(
                f"{self.name} is the net's only layer: its features are the data, its errors p − e"
            )
        return tuple(found)

    def as_matrix(self, weight: Tensor) -> Float[Tensor, "o i"]:
        """A tensor in the shape of the layer's weight as a matrix from inputs to outputs."""
        found = self._found.formula.matrix(weight)
        return self.matrix if found is None else found  # which says what it is instead

    def require_kronecker(self, bias: bool = False) -> None:
        """Raise ValueError where H ⊗ Δ is no approximation of G^l: there is no weight matrix."""
        if not self.weight_in_theta:
            raise ValueError(
                f"expected a layer with its weight in θ, but of {self.name} only the bias is"
            )
        _ = self.matrix
        if bias and not self.bias_in_theta:
            raise ValueError(
                f"expected a layer with its bias in θ, but {self.name} has none there; leave "
                "bias=True out"
            )


def _require_samples(problem: Problem) -> None:
    """Errors of a layer are those of a sample's one label, each counted 1/n."""
    problem.require_classes()
    even = bool((problem.weights == problem.weights[0]).all()) and problem.weights.sum() == 1
    if not problem.has_one_row_a_sample or not even or not problem.keeps_logits:
        raise ValueError(
            "expected a classifier with one label a sample, all counted alike, for its layers, got "
            f"{problem.num_rows:,} rows of {problem.num_samples:,} samples, weighted or too many "
            "to keep. Their G, a layer at a time, is GaussNewton(problem.restricted(names)), and "
            "deepspec.block_spectra has all of them"
        )
