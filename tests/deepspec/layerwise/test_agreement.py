"""Agreement of Kronecker approximations with G^l and G, against dense matrices of all of θ."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot
from torch import Tensor

from deepspec import Problem
from deepspec.layerwise.agreement import (
    BLOCKS,
    Agreement,
    CurvatureAgreement,
    curvature_agreement,
    layer_agreement,
)
from deepspec.layerwise.blocks import APPROXIMATIONS, in_whole, matrix_places
from deepspec.layerwise.layers import Layers
from deepspec.zoo.networks import mlp
from tests import oracles
from tests.cases import CASES
from tests.deepspec.layerwise.test_kinds import attending
from tests.layered_cases import problem_of

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding=.same. with even"),
    # A net that pads its tokens, which forward mode gets wrong.
    pytest.mark.filterwarnings("ignore:forward mode and reverse mode:RuntimeWarning"),
]

NETS = [
    pytest.param(name, shared, id=f"{name}-{shared}")
    for name in ("mlp", "convolutional", "missing class")
    for shared in ("expand", "reduce")
    if name == "convolutional" or shared == "reduce"
]


@cache
def built(name: str, shared: str) -> tuple[Layers, Tensor, CurvatureAgreement]:
    case = next(case for case in CASES if case.name == name)
    model, features, labels = case.build()
    problem = Problem(
        model, (features, labels), batch_size=case.batch_size, num_classes=case.num_classes
    )
    layers = Layers(problem, shared=shared)
    return layers, oracles.gauss_newton(model, features), curvature_agreement(layers)


def offsets(layers: Layers) -> dict[str, int]:
    starts, start = {}, 0
    space = layers.problem.space
    for name, shape in zip(space.names, space.shapes, strict=True):
        starts[name] = start
        start += torch.Size(shape).numel()
    return starts


def dense_blocks(layers: Layers, G: Tensor, kind: str) -> dict[str, tuple[list[int], Tensor]]:
    """For each layer its places in θ, and there the exact block or the approximation."""
    starts, found = offsets(layers), {}
    for layer in layers:
        own = [
            starts[name] + entry
            for name in layer.parameter_names
            for entry in range(layers.problem.space.restricted([name]).size)
        ]
        if kind == BLOCKS or layer.normalizes:
            found[layer.name] = own, G[own][:, own]
            continue
        bias = layer.bias_in_theta
        places = []
        for o in range(layer.width_out):
            first = starts[f"{layer.name}.weight"] + o * layer.width_in
            places += list(range(first, first + layer.width_in))
            places += [starts[f"{layer.name}.bias"] + o] if bias else []
        K = APPROXIMATIONS[kind](layer, bias).to_dense()
        whole = torch.zeros_like(G)
        whole[torch.tensor(places)[:, None], torch.tensor(places)] = K
        found[layer.name] = own, whole[own][:, own]
    return found


def by_definition(K: Tensor, A: Tensor, C: int, eigenvalues: int) -> dict[str, float]:
    mine, vectors = torch.linalg.eigh(K)
    theirs, true_vectors = torch.linalg.eigh(A)
    mine, theirs = mine.flip(0)[:eigenvalues], theirs.flip(0)[:eigenvalues]
    ratios = (mine.clamp_min(0.0) / theirs).log().abs()
    cosines = true_vectors[:, -C:].T @ vectors[:, -C:]
    return {
        "log_ratio_top": float(ratios[:C].mean()),
        "log_ratio_next": float(ratios[C:].mean()),
        "relative_error": float((K - A).norm() / A.norm()),
        "overlap": float(cosines.square().sum()) / C,
        "trace_ratio": float(K.trace() / A.trace()),
    }


def agrees(found: Agreement, K: Tensor, A: Tensor, C: int) -> None:
    scale = float(torch.linalg.eigvalsh(A)[-1])
    top = torch.linalg.eigvalsh(K).flip(0)[: len(found.eigenvalues)]
    assert float((found.eigenvalues - top).abs().max()) < 1e-10 * float(top[0])
    for name, expected in by_definition(K, A, C, len(top)).items():
        if name == "log_ratio_next":
            # Logarithms of eigenvalues near rounding are as uncertain as those.
            small = float(top[top > 0][-1]) / scale
            assert abs(getattr(found, name) - expected) < 1e-9 / min(small, 1.0)
        elif name == "relative_error":
            # The square is what is exact: differences of squared norms.
            assert abs(found.relative_error**2 - expected**2) < 1e-10
        else:
            assert abs(getattr(found, name) - expected) < 1e-9, name


@pytest.mark.parametrize(("name", "shared"), NETS)
@pytest.mark.parametrize("kind", APPROXIMATIONS)
def test_each_layer_by_definition(name: str, shared: str, kind: str) -> None:
    layers, G, found = built(name, shared)
    C = layers.problem.num_classes
    blocks = dense_blocks(layers, G, kind)
    exact = dense_blocks(layers, G, BLOCKS)
    assert [layer.name for layer in found.layers] == [
        layer.name for layer in layers if not layer.normalizes
    ]
    for layer in found.layers:
        agrees(layer[kind], blocks[layer.name][1], exact[layer.name][1], C)
        top = torch.linalg.eigvalsh(exact[layer.name][1]).flip(0)[: len(layer.eigenvalues)]
        assert float((layer.eigenvalues - top).abs().max()) < 1e-10 * float(top[0])


@pytest.mark.parametrize(("name", "shared"), NETS)
@pytest.mark.parametrize("kind", [BLOCKS, *APPROXIMATIONS])
def test_the_whole_by_definition(name: str, shared: str, kind: str) -> None:
    layers, G, found = built(name, shared)
    whole = torch.zeros_like(G)
    for own, block in dense_blocks(layers, G, kind).values():
        whole[torch.tensor(own)[:, None], torch.tensor(own)] = block
    agrees(found.whole[kind], whole, G, layers.problem.num_classes)
    top = float(torch.linalg.eigvalsh(whole)[-1] / torch.linalg.eigvalsh(G)[-1])
    assert abs(found.whole.top_ratio(kind) - top) < 1e-10


@pytest.mark.parametrize(("name", "shared"), NETS)
def test_what_must_hold(name: str, shared: str) -> None:
    found = built(name, shared)[2]
    for block in (*found.layers, found.whole):
        errors = {kind: block[kind].relative_error for kind in APPROXIMATIONS}
        # EKFAC is the best diagonal in KFAC's basis, KFOC the best product.
        assert errors["ekfac"] <= errors["kfac"] + 1e-12
        assert errors["kfoc"] <= errors["kfac"] + 1e-9
        assert abs(block["ekfac"].trace_ratio - 1) < 1e-10
    # Blocks take nothing from the trace, and no block has an eigenvalue above G's.
    assert abs(found.whole[BLOCKS].trace_ratio - 1) < 1e-10
    assert found.whole.top_ratio(BLOCKS) <= 1 + 1e-12
    assert all(
        found.whole[BLOCKS].relative_error <= found.whole[kind].relative_error + 1e-12
        for kind in APPROXIMATIONS
    )
    depth = found.by_depth("relative_error")
    assert set(depth) == set(APPROXIMATIONS)
    assert depth["cfac"] == [layer["cfac"].relative_error for layer in found.layers]


def test_a_result_is_saved_and_says_what_it_is(tmp_path: Path) -> None:
    _, _, found = built("mlp", "reduce")
    found.save(tmp_path / "result")
    again = CurvatureAgreement.load(tmp_path / "result")
    assert again.by_depth("overlap") == found.by_depth("overlap")
    assert torch.equal(again.whole.eigenvalues, found.whole.eigenvalues)
    for shown in (repr(found), repr(found.whole), repr(found.layers[0]["kfac"])):
        assert len(shown.splitlines()) <= 10
    assert repr(found.layers[0]).startswith("BlockAgreement(")
    assert "0, 30 parameters" in " ".join(repr(found.layers[0]).split())
    table = found._table()
    assert table["block"][0] == "0"
    assert table["block"][-1] == "G"
    assert {len(column) for column in table.values()} == {len(found.layers) * 4 + 5}
    assert found.whole._table()["approximation"] == [BLOCKS, *APPROXIMATIONS]
    axes = found.plot()
    assert [line.get_label() for line in axes.lines] == ["KFAC", "CFAC", "EKFAC", "KFOC"]
    pyplot.close(axes.figure)


@pytest.mark.parametrize("name", ["transposed", "signal", "attention", "language", "grouped"])
def test_entries_stand_where_theta_has_them(name: str) -> None:
    if name == "attention":
        model, data = attending(batch_first=True)
        problem = Problem(model, data, batch_size=3)
    else:
        problem = problem_of(name, select=lambda n, _: name != "grouped" or not n.startswith("5."))
    seen = 0
    for layer in Layers(problem, shared="expand"):
        if layer.normalizes or layer.groups > 1:
            continue
        E = layer.ekfac(layer.bias_in_theta)
        basis = torch.zeros(layer.own.size, E.values.numel(), dtype=torch.float64)
        basis[matrix_places(layer, layer.bias_in_theta)] = torch.kron(E.left, E.right)
        G = layer.gradients.second_moment.to_dense()
        diagonal = (basis * (G @ basis)).sum(dim=0)
        assert float((E.values.flatten() - diagonal).abs().max()) < 1e-10 * float(diagonal.max())
        found = layer_agreement(layer, E)
        dense = basis @ torch.diag(diagonal) @ basis.T
        assert abs(found.relative_error**2 - float((G - dense).norm() / G.norm()) ** 2) < 1e-10
        seen += 1
    assert seen >= 2


def test_any_operator_on_a_layer() -> None:
    layers, G, found = built("mlp", "reduce")
    layer, C = layers["2"], layers.problem.num_classes
    again = layer_agreement(layer, layer.kfac(bias=True))
    assert again.overlap == found.layers[1]["kfac"].overlap
    # Without the bias it is zero there.
    alone = layer.kfac()
    whole = torch.zeros(layer.own.size, layer.own.size, dtype=torch.float64)
    whole[: alone.size, : alone.size] = alone.to_dense()
    agrees(layer_agreement(layer, alone), whole, dense_blocks(layers, G, BLOCKS)["2"][1], C)
    with pytest.raises(ValueError, match=r"matrices \(5, 6\) or \(5, 7\) of 2, got <30"):
        layer_agreement(layer, layers["0"].kfac(bias=True))


def test_only_some_kinds() -> None:
    layers, _, _ = built("mlp", "reduce")
    found = curvature_agreement(layers, ["ekfac"])
    assert set(found.whole.by_approximation) == {BLOCKS, "ekfac"}


def test_one_sample_a_class_makes_cfac_exact_in_a_net() -> None:
    features = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double()
    model = mlp(3, (4,), 3, seed=0, normalise=False).double()
    found = curvature_agreement(Layers(Problem(model, (features, torch.arange(3)))))
    for layer in found.layers:
        assert layer["cfac"].relative_error < 1e-6  # its square is a difference near rounding
        assert abs(layer["cfac"].overlap - 1) < 1e-10
        assert layer["cfac"].log_ratio_top < 1e-10
        assert layer["kfac"].relative_error > 1e-3
    whole = found.whole
    assert abs(whole["cfac"].relative_error - whole[BLOCKS].relative_error) < 1e-10


def test_layers_hand_over_their_matrices() -> None:
    layers, G, _ = built("convolutional", "reduce")
    layer = layers["0"]
    with_bias = layer.kfac(bias=True)
    assert with_bias.size == layer.width_out * (layer.width_in + 1)
    without = with_bias.to_dense().view(3, 19, 3, 19)[:, :-1, :, :-1].reshape(54, 54)
    assert torch.allclose(layer.kfac().to_dense(), without)
    assert layer.cfac(seed=4).seed == 4
    assert layer.kfoc().size == layer.ekfac().size == 54
    places = matrix_places(layer, True)
    assert sorted(places.tolist()) == list(range(57))
    columns = torch.arange(len(G)).double()[:, None]
    assert torch.equal(in_whole(layers["4"], columns)[:, 0], columns[63:111, 0])


def test_what_cannot_be() -> None:
    layers, _, _ = built("convolutional", "reduce")
    with pytest.raises(ValueError, match="expected kinds among kfac, cfac, ekfac, kfoc; got 'k'"):
        curvature_agreement(layers, ["k"])
    with pytest.raises(ValueError, match="got none"):
        curvature_agreement(layers, [])
    with pytest.raises(ValueError, match=r"one of log_ratio_top.*got 'loss'"):
        built("mlp", "reduce")[2].by_depth("loss")
    with pytest.raises(ValueError, match="one matrix, but 1 is a normalisation"):
        layers["1"].kfac()
    with pytest.raises(ValueError, match="its bias in θ, but 4 has none there; leave bias=True"):
        layers["4"].cfac(bias=True)
    model, features, labels = CASES[1].build()
    norms = Problem(model, (features, labels), select=lambda name, _: name.startswith(("1", "5")))
    with pytest.raises(ValueError, match=r"one matrix, but there are only 1 \(BatchNorm2d\), 5"):
        curvature_agreement(Layers(norms))
