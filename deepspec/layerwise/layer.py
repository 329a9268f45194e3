"""One layer of a net: its arrays, its weight, and what approximates its curvature."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepspec.class_structure.array import ClassArray, gradients
from deepspec.layers.normalization import NormalizationFormula
from deepspec.layers.recording import Layer as LayerWithFormula
from deepspec.layerwise.arrays import error_array, feature_array
from deepspec.layerwise.by_class import ClassKronecker, cfac
from deepspec.layerwise.collapse import (
    NeuralCollapse,
    makes,
    neural_collapse,
    neural_collapse_inside,
)
from deepspec.layerwise.nearest_product import kfoc
from deepspec.layerwise.one_product import ekfac, kfac
from deepspec.layerwise.products_of_means import MeanProducts, mean_products
from deepspec.layerwise.records import LayerBatch, Records
from deepspec.layerwise.weights import LayerWeight
from deepspec.operators import KroneckerBasis, KroneckerProduct
from deepspec.problem import Problem
from deepspec.seeds import Seed

if TYPE_CHECKING:
    from deepspec.layerwise.layers import Layers


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

    # ---- approximations of G^l ----------------------------------------------------------------

    def kfac(self, bias: bool = False) -> KroneckerProduct:
        """Δ ⊗ H on the weight, flattened row by row.

        See :func:`deepspec.layerwise.one_product.kfac`. With ``bias`` on (out, in + 1),
        whose last column is the bias.

        Raises
        ------
        ValueError
            If θ does not have the weight (or the bias that is asked for), or it is no matrix.
        """
        self.require_kronecker(bias)
        return kfac(self.batches, self.shared, bias=bias)

    def cfac(
        self, bias: bool = False, labels: Int[Tensor, " n"] | None = None, seed: Seed = 0
    ) -> ClassKronecker:
        """Σ_c (n_c/n) Δ_c ⊗ H_c, as :meth:`kfac`; see :func:`deepspec.layerwise.by_class.cfac`.

        Other ``labels`` make it a null: groups that are no classes.
        """
        self.require_kronecker(bias)
        return cfac(self.batches, self.shared, bias=bias, labels=labels, seed=seed)

    def ekfac(self, bias: bool = False) -> KroneckerBasis:
        """G^l's diagonal in KFAC's eigenbasis: :func:`deepspec.layerwise.one_product.ekfac`."""
        self.require_kronecker(bias)
        return ekfac(self.batches, self.shared, bias=bias)

    def kfoc(self, bias: bool = False, seed: Seed = 0) -> KroneckerProduct:
        """The product nearest to G^l: :func:`deepspec.layerwise.nearest_product.kfoc`."""
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
