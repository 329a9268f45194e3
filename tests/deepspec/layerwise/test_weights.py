"""W against W_class, products of means, and neural collapse at every layer, by definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepspec import Layers, Problem
from deepspec.layerwise.collapse import neural_collapse, neural_collapse_inside
from deepspec.layerwise.products_of_means import MeanProducts, squared_norms
from deepspec.layerwise.weights import WeightKnockout
from tests import oracles
from tests.cases import CASES
from tests.deepspec.layerwise.test_layers import IDS, observed, problem_of
from tests.layered_cases import built


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> bool:
    return float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_weight_without_its_class_part(case: object) -> None:
    model, problem = problem_of(case)
    _, features, labels = case.build()
    n, eta = len(labels), 0.02
    with torch.enable_grad():
        for parameter in model.parameters():
            parameter.grad = None
        F.cross_entropy(model(features), labels).backward()
    gradients = [p.grad.clone() for p in model.parameters()]
    pull = [eta * p.detach() for p in model.parameters()]
    whole = sum((g + w).square().sum() for g, w in zip(gradients, pull, strict=True)).sqrt()
    length = sum(w.square().sum() for w in pull).sqrt()
    for layer in Layers(problem):
        module = dict(model.named_modules())[layer.name]
        if layer.normalizes:
            with pytest.raises(ValueError, match=f"{layer.name} is a normalisation"):
                _ = layer.weight
            continue
        W = module.weight.detach().flatten(1)
        assert torch.equal(layer.weight, W)
        assert type(layer.weight @ layer.weight.T) is Tensor
        seen = observed(case, module, model)
        part = torch.zeros_like(W)
        for c in set(labels.tolist()):
            members = [i for i in range(n) if int(labels[i]) == c]
            h = sum(seen.inputs[i].mean(dim=0) for i in members) / len(members)
            delta = sum(seen.errors[i][c].sum(dim=0) for i in members) / len(members)
            part -= len(members) / n / eta * torch.outer(delta, h)
        found = layer.weight.knock_out(weight_decay=eta)
        left, s, right = torch.linalg.svd(part)
        r = int((s > 1e-10 * s[0]).sum())
        keep_left = torch.eye(len(W)).double() - left[:, :r] @ left[:, :r].T
        keep_right = torch.eye(W.shape[1]).double() - right[:r].T @ right[:r]
        assert close(found.before, torch.linalg.svdvals(W))
        assert close(found.of_class, s[:r])
        assert close(found.subtracted, torch.linalg.svdvals(W - part))
        expected = torch.linalg.svdvals(keep_left @ W @ keep_right)
        assert float((found.projected - expected).abs().max()) < 1e-10 * float(found.before[0])
        grad = module.weight.grad.flatten(1)
        stationarity = float((grad + eta * W).norm() / (eta * W).norm())
        assert found.stationarity == pytest.approx(stationarity, rel=1e-10)
        assert found.net_stationarity == pytest.approx(float(whole / length), rel=1e-10)


def test_at_a_stationary_point_the_weight_is_its_sum() -> None:
    """A linear classifier with weight decay, trained to the end: W = W_class + scatter."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        X, y = torch.randn(20, 4).double(), torch.arange(20) % 3
    model, eta = nn.Linear(4, 3, bias=False).double(), 0.1
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=200, tolerance_grad=1e-14, tolerance_change=0.0
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(model(X), y) + eta / 2 * model.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = Layers(Problem(model, (X, y)))[0].weight.knock_out(eta)
    assert found.stationarity < 1e-7
    assert "not stationary" not in repr(found)
    # Here every class mean of the errors sees every class: nothing is left of three outputs.
    assert float(found.projected.max()) < 1e-6 * float(found.before[0])


def test_no_weight_decay_no_class_part(tmp_path: object) -> None:
    _, problem = problem_of(CASES[0])
    weight = Layers(problem)[0].weight
    for nothing in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match=r"expected the weight decay .* above 0, got"):
            weight.knock_out(nothing)
    found = weight.knock_out(1e-3)
    assert "not stationary" in repr(found)
    found.save(tmp_path / "weight")
    loaded = WeightKnockout.load(tmp_path / "weight")
    assert torch.equal(loaded.subtracted, found.subtracted)


# ---- products of means --------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 2**28])
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_products_of_means_beside_mean_gradients(
    case: object, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepspec.layerwise.products_of_means.BYTES_AT_ONCE", room)
    model, problem = problem_of(case)
    _, features, labels = case.build()
    n, C = len(labels), case.num_classes
    J = oracles.jacobian(model, features)
    p = problem.probabilities
    g = torch.einsum("icp,ick->ikp", J, p[:, :, None] - torch.eye(C).double())
    start = 0
    for layer in Layers(problem):
        size, first = layer.own.size, layer.matrix.numel() if not layer.normalizes else 0
        share, start = g[:, :, start : start + first], start + size
        if layer.normalizes:
            with pytest.raises(ValueError, match="is a normalisation"):
                layer.mean_products()
            continue
        seen = observed(case, dict(model.named_modules())[layer.name], model)
        found = layer.mean_products()
        for c in range(C):
            members = [i for i in range(n) if int(labels[i]) == c]
            if not members:
                assert bool(found.cosine[c].isnan().all() & found.class_cosine[c].isnan())
                continue
            h = sum(seen.inputs[i].mean(dim=0) for i in members) / len(members)
            cells = []
            for other in range(C):
                weight = sum(p[i, other] for i in members)
                mean = sum(p[i, other] * share[i, other] for i in members) / weight
                delta = sum(p[i, other] * seen.errors[i][other].sum(dim=0) for i in members)
                product = torch.outer(delta / weight, h).flatten()
                cells.append((weight, mean, product))
                cosine = float(F.cosine_similarity(mean, product, dim=0))
                assert float(found.cosine[c, other]) == pytest.approx(cosine, abs=1e-10)
                error = float((mean - product).norm() / mean.norm())
                assert float(found.relative_error[c, other]) == pytest.approx(error, rel=1e-10)
                assert float(found.weights[c, other]) == pytest.approx(float(weight) / n)
            rest = [cell for other, cell in enumerate(cells) if other != c]
            total = sum(cell[0] for cell in rest)
            mean = sum(cell[0] * cell[1] for cell in rest) / total
            product = sum(cell[0] * cell[2] for cell in rest) / total
            cosine = float(F.cosine_similarity(mean, product, dim=0))
            assert float(found.class_cosine[c]) == pytest.approx(cosine, abs=1e-10)
            error = float((mean - product).norm() / mean.norm())
            assert float(found.class_relative_error[c]) == pytest.approx(error, rel=1e-10)


def test_both_ways_to_the_length_of_a_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    for m, i, o in ((2, 5, 6), (40, 2, 3)):
        inputs = torch.randn(m, i, generator=generator, dtype=torch.float64)
        errors = torch.randn(3, m, o, generator=generator, dtype=torch.float64)
        expected = torch.einsum("kmo,mi->koi", errors, inputs).flatten(1).square().sum(dim=1)
        assert close(squared_norms(inputs, errors), expected, 1e-13)


def test_products_of_means_are_kept(tmp_path: object) -> None:
    _, problem = problem_of(CASES[2])
    found = Layers(problem)[1].mean_products()
    found.save(tmp_path / "products")
    loaded = MeanProducts.load(tmp_path / "products")
    assert torch.equal(loaded.cosine.nan_to_num(9), found.cosine.nan_to_num(9))
    assert f"2: median cosine {found.cosine.nanmedian():.3f} of " in repr(loaded)


# ---- neural collapse ----------------------------------------------------------------------------


def test_neural_collapse_at_every_layer() -> None:
    model, problem = problem_of(CASES[1])
    _, X, labels = CASES[1].build()
    modules = dict(model.named_modules())
    for layer in Layers(problem):
        module = modules[layer.name]
        seen = observed(CASES[1], module, model)
        h = torch.stack([x.mean(dim=0) for x in seen.inputs])
        chosen = model(X).argmax(dim=1)
        weight = None if layer.normalizes else module.weight.detach().flatten(1)
        if layer.name == "8":
            expected = neural_collapse(h, labels, weight, module.bias.detach())
        else:
            expected = neural_collapse_inside(h, labels, weight, chosen)
        found = layer.neural_collapse()
        assert vars(found) == pytest.approx(vars(expected), rel=1e-9, nan_ok=True)


def test_collapse_inside_the_net_by_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat(9)[:33]
    features = torch.randn(33, 6, generator=generator, dtype=torch.float64) + labels[:, None]
    weight = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    chosen = torch.randint(4, (33,), generator=generator)
    found = neural_collapse_inside(features, labels, weight, chosen)
    means = torch.stack([features[labels == c].mean(0) for c in range(4)])
    span = torch.linalg.svd(means - means.mean(0))[2][:3]
    top = torch.linalg.svd(weight)[2][:3]
    cosines = torch.linalg.svdvals(span @ top.T)
    assert found.nc3 == pytest.approx(1 - float(cosines.square().mean()), rel=1e-10)
    nearest = (features[:, None] - means).norm(dim=2).argmin(1)
    assert found.nc4 == pytest.approx(float((nearest != chosen).double().mean()))
    last = neural_collapse(features, labels, torch.eye(4, 6).double())
    for name in ("nc1", "nc2_norms", "nc2_angles"):
        assert getattr(found, name) == getattr(last, name)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        neural_collapse_inside(features, torch.zeros(33, dtype=torch.long), weight, chosen)


def test_an_embedding_s_weight_goes_from_tokens_to_vectors() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(6, 4), nn.Linear(4, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(torch.tanh(self.embed(tokens)).mean(dim=1))

    tokens = torch.randint(6, (7, 5), generator=torch.Generator().manual_seed(0))
    problem = Problem(built(Bag(), tokens), (tokens, torch.arange(7) % 3))
    layer = Layers(problem)["embed"]
    assert tuple(layer.weight.shape) == (4, 6)
    assert torch.equal(layer.weight.T.flatten(), layer.own.parameters)
    assert layer.neural_collapse().nc1 > 0
    assert float(layer.mean_products().cosine.min()) > 0
