"""The layers of a net in the order they are used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args
from weakref import WeakValueDictionary

from deepspec.class_structure.cells import Convention
from deepspec.layers.recording import Layer as LayerWithFormula
from deepspec.layerwise.finding import find_layers
from deepspec.layerwise.layer import Layer
from deepspec.layerwise.records import Mask, Records, Shared
from deepspec.operators.on_problem import require_problem
from deepspec.problem import Problem


class Layers:
    """The layers of a net in the order they are used, each with its features and errors.

    ``layers[0]`` or ``layers["features.3"]``. Papyan (2020) §7: class structure is made layer by
    layer, in features, backpropagated errors and weights. A layer is a module that is called once
    and whose parameters in θ have a formula (Linear, Conv1d, Conv2d, Embedding, projections of
    attention, normalisations); ``left_out`` says of every other module with parameters in θ why it
    is none, and asking for it raises.

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

    >>> import torch
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


def _require_samples(problem: Problem) -> None:
    """Errors of a layer are those of a sample's one label, each counted 1/n."""
    problem.require_classes()
    even = float((problem.weights * problem.num_rows - 1).abs().max()) < 1e-9
    if not problem.has_one_row_a_sample or not even or not problem.keeps_logits:
        raise ValueError(
            "expected a classifier with one label a sample, all counted alike, for its layers, got "
            f"{problem.num_rows:,} rows of {problem.num_samples:,} samples, weighted or too many "
            "to keep. Their G, a layer at a time, is GaussNewton(problem.restricted(names)), and "
            "deepspec.block_spectra has all of them"
        )
