"""Every layer's arrays and all their parts, against dense matrices by definition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import deepspec
from deepspec import ClassArray, Layers, Problem
from tests import oracles
from tests.cases import CASES, Case
from tests.deepspec.class_structure.test_array import PARTS, alike, by_loops, descending
from tests.deepspec.layerwise import oracle
from tests.layered_cases import built

# A net that pads its tokens, which forward mode gets wrong.
pytestmark = pytest.mark.filterwarnings("ignore:forward mode and reverse mode:RuntimeWarning")
IDS = [case.name for case in CASES]
HOW = ("expand", "reduce")


def problem_of(case: Case, **options: object) -> tuple[nn.Module, Problem]:
    model, features, labels = case.build()
    options = {"num_classes": case.num_classes, "batch_size": case.batch_size, **options}
    return model, Problem(model, (features, labels), **options)


def observed(case: Case, module: nn.Module, model: nn.Module) -> oracle.Observed:
    _, features, _ = case.build()
    samples = [x[None] for x in features]
    return oracle.observe(model, module, samples, case.num_classes, *oracle.ways(module))


def holds(array: ClassArray, vectors: Tensor, labels: Tensor, weights: Tensor) -> None:
    """Second moment, parts, spectra and knockouts are those of Σ w v vᵀ by loops."""
    rows = weights.sqrt()[..., None] * vectors
    V = rows.flatten(0, -2).T @ rows.flatten(0, -2)
    expected = by_loops(vectors, labels, weights)
    scale = float(descending(V)[0])
    assert float((array.second_moment.to_dense() - V).abs().max()) < 1e-10 * scale
    assert alike(array.eigenvalues(), descending(V), scale)
    for name in PARTS:
        B = expected[name]
        assert float((array.parts[name].to_dense() - B).abs().max()) < 1e-10 * scale, name
        assert alike(array.eigenvalues(name), descending(B), scale), name
        assert alike(array.knock_out(name), descending(V - B), scale), name


@pytest.mark.parametrize("shared", HOW)
@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_features_and_errors_by_definition(case: Case, shared: str) -> None:
    model, problem = problem_of(case)
    modules = dict(model.named_modules())
    for layer in Layers(problem, shared=shared):
        found = observed(case, modules[layer.name], model)
        holds(layer.features, *oracle.feature_rows(found, problem.labels, shared))
        holds(layer.errors, *oracle.error_rows(found, problem.labels, shared))
        assert layer.features.num_classes == layer.errors.num_classes == case.num_classes


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_gradients_are_the_diagonal_blocks_of_g(case: Case) -> None:
    model, problem = problem_of(case)
    _, features, labels = case.build()
    parts = oracles.parts_of_g(model, features, labels, "jmlr2020")
    G = oracles.gauss_newton(model, features)
    start, total = 0, 0.0
    layers = Layers(problem)
    for layer in layers:
        array, stop = layer.gradients, start + layer.own.size
        block = slice(start, stop)
        scale = float(descending(G[block, block])[0])
        error = (array.second_moment.to_dense() - G[block, block]).abs().max()
        assert float(error) < 1e-10 * scale
        assert alike(array.eigenvalues(), descending(G[block, block]).clamp_min(0), scale)
        for name, part in parts.items():
            B = part[block, block]
            assert float((array.parts[name].to_dense() - B).abs().max()) < 1e-10 * scale, name
            assert alike(array.eigenvalues(name), descending(B), scale), name
            assert alike(array.knock_out(name), descending(G[block, block] - B), scale), name
        total += array.gram.trace()
        start = stop
    assert start == problem.size
    assert total == pytest.approx(float(G.trace()), rel=1e-10)
    assert total == pytest.approx(deepspec.gradients(problem).gram.trace(), rel=1e-10)


def test_a_sample_s_gradient_is_the_sum_over_positions_of_errors_by_inputs() -> None:
    model, problem = problem_of(CASES[1])
    _, features, _ = CASES[1].build()
    J = oracles.jacobian(model, features)
    g = torch.einsum("icp,ick->ikp", J, problem.probabilities[:, :, None] - torch.eye(4).double())
    layer = Layers(problem)["4"]
    start = sum(p.numel() for p in list(model.parameters())[:4])
    share = g[:, :, start : start + layer.own.size]
    for batch in layer.batches():
        found = torch.einsum("bcto,bti->bcoi", batch.errors, batch.inputs).flatten(2)
        assert float((found - share[batch.rows]).abs().max()) < 1e-12
        assert torch.equal(batch.labels, problem.labels[batch.rows])
        assert torch.equal(batch.weights, problem.probabilities[batch.rows] / 7)


@pytest.mark.parametrize("budget", [0, 2000, 10**8])
def test_what_is_held_changes_nothing(budget: int) -> None:
    _, problem = problem_of(CASES[1], memory_budget=budget)
    _, held = problem_of(CASES[1], memory_budget=10**8, batch_size=99)
    for few, all_ in zip(Layers(problem), Layers(held), strict=True):
        for one, other in ((few.features, all_.features), (few.errors, all_.errors)):
            expected = other.second_moment.to_dense()
            assert float((one.second_moment.to_dense() - expected).abs().max()) < 1e-14


def test_the_2019_papers_means() -> None:
    case = CASES[0]
    model, problem = problem_of(case)
    layer = Layers(problem, convention="icml2019")[1]
    found = observed(case, model[2], model)
    vectors, labels, weights = oracle.error_rows(found, problem.labels, "reduce")
    rooted = weights.sqrt()[..., None] * 3 * vectors  # √p δ with weight 1/n, n = 9
    holds(layer.errors, rooted, labels, torch.full_like(weights, 1 / 9))
    G2 = oracles.parts_of_g(model, case.build()[1], problem.labels, "icml2019")["cross_class"]
    block = G2[30:65, 30:65]
    assert alike(layer.gradients.eigenvalues("cross_class"), descending(block), 1.0)


class Tagger(nn.Module):
    """Tokens of a padded batch; the mean over what is no padding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.inner = nn.Embedding(7, 4, padding_idx=0), nn.Linear(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        hidden = torch.tanh(self.inner(self.embed(tokens)))
        kept = attention_mask[:, :, None].to(hidden.dtype)
        return self.head((kept * hidden).sum(dim=1) / kept.sum(dim=1))


def ragged() -> tuple[nn.Module, list[dict[str, Tensor]]]:
    """Two batches of sequences padded to different lengths; one token of its own is padding."""
    tokens = [torch.tensor([[1, 2, 3, 0], [4, 5, 0, 0]]), torch.tensor([[6, 1, 0], [2, 0, 3]])]
    masks = [torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]), torch.tensor([[1, 1, 0], [1, 1, 1]])]
    labels = [torch.tensor([0, 1]), torch.tensor([2, 0])]
    batches = [
        {"tokens": t, "attention_mask": m, "labels": y}
        for t, m, y in zip(tokens, masks, labels, strict=True)
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Tagger().double().eval(), batches


@pytest.mark.parametrize("shared", HOW)
def test_padding_is_in_no_second_moment(shared: str) -> None:
    model, batches = ragged()
    problem = Problem(model, batches)
    layers = Layers(problem, shared=shared)
    samples, masks = [], []
    for batch in batches:
        for tokens, mask in zip(batch["tokens"], batch["attention_mask"], strict=True):
            samples.append({"tokens": tokens[None], "attention_mask": mask[None]})
            masks.append(mask == 1)
    for name in ("inner", "head"):
        module = getattr(model, name)
        found = oracle.observe(model, module, samples, 3, oracle.plain, oracle.plain)
        counted = masks if name == "inner" else None
        rows = oracle.feature_rows(found, problem.labels, shared, counted)
        holds(layers[name].features, *rows)
        holds(layers[name].errors, *oracle.error_rows(found, problem.labels, shared, counted))
    # The padding token is none of the embedding's, even where the mask says that it counts.
    one_hot = [F.one_hot(s["tokens"], 7).double() for s in samples]
    kept = [m & (s["tokens"][0] != 0) for m, s in zip(masks, samples, strict=True)]
    seen = oracle.Observed([x[0] for x in one_hot], [], torch.zeros(0))
    holds(layers["embed"].features, *oracle.feature_rows(seen, problem.labels, shared, kept))


def test_a_mask_of_one_s_own() -> None:
    model, batches = ragged()
    problem = Problem(model, batches)
    expected = Layers(problem, shared="expand")["inner"].features.second_moment.to_dense()
    for mask in ("attention_mask", lambda inputs: inputs["attention_mask"]):
        found = Layers(problem, shared="expand", mask=mask)["inner"].features
        assert torch.equal(found.second_moment.to_dense(), expected)
    every = Layers(problem, shared="expand", mask=lambda x: torch.ones_like(x["tokens"]))
    assert every["inner"].features.rows.size == 14
    with pytest.raises(ValueError, match=r"an input named 'mask' as the mask, but .* have tokens"):
        _ = Layers(problem, mask="mask")["inner"].features
    with pytest.raises(ValueError, match=r"a mask of shape \(2, positions\).*got \(3,\)"):
        _ = Layers(problem, mask=lambda x: torch.ones(3))["inner"].features


# ---- what is there, and what is not -------------------------------------------------------------


class Twice(nn.Module):
    """In another order than it is written; one layer twice, one tied, one without formula."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first = nn.Linear(4, 3), nn.Linear(3, 4)
        self.again = nn.Linear(4, 4)
        self.one, self.other = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.other.weight = self.one.weight
        self.slope = nn.PReLU()
        self.read = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.again(torch.tanh(self.again(self.slope(self.first(x)))))
        hidden = self.other(torch.tanh(self.one(hidden)))
        return self.last(torch.tanh(F.linear(hidden, self.read.weight)))


@pytest.fixture
def twice() -> Layers:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, X = built(Twice(), torch.randn(5, 3).double()), torch.randn(5, 3).double()
    return Layers(Problem(model, (X, torch.tensor([0, 1, 2, 0, 1])), batch_size=2))


def test_layers_are_in_the_order_they_are_used(twice: Layers) -> None:
    assert twice.names == ("first", "last")
    assert [layer.name for layer in twice] == ["first", "last"]
    assert len(twice) == 2
    assert twice[0] is twice["first"]
    assert twice[-1].name == "last"
    assert twice[0].kind == "Linear"
    assert "left out: slope, again, one, read, other" in repr(twice)
    assert repr(twice[0]) == "Layer('first': Linear 3 → 4, 16 parameters)"


@pytest.mark.parametrize(
    ("key", "kind", "words"),
    [
        ("middle", KeyError, "one of first, last; got middle"),
        ("again", ValueError, "again: it is used 2 times in one forward pass"),
        ("one", ValueError, r"one: its weight is tied to other\.weight"),
        ("other", ValueError, r"other: its weight is tied to one\.weight"),
        ("slope", ValueError, "slope: PReLU .* has no formula"),
        ("read", ValueError, "read: it is not called"),
        (2, IndexError, r"a layer in 0\.\.1, got 2"),
        (1.0, TypeError, "number or name, got float"),
    ],
)
def test_what_is_no_layer_says_why(
    twice: Layers, key: object, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        twice[key]  # type: ignore[index]


def test_an_output_that_a_hook_changes_is_not_believed() -> None:
    model, _ = problem_of(CASES[0])
    model[2].register_forward_hook(lambda module, args, output: 2 * output)
    _, X, y = CASES[0].build()
    layers = Layers(Problem(model, (X, y)))
    assert layers.names == ("0", "4")
    with pytest.raises(ValueError, match=r"2: its formula does not give the gradient by 2\.weight"):
        layers["2"]


class Branching(nn.Module):
    """Takes one of two ways, by what is in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh((self.one if float(x[0, 0]) > 0 else self.other)(x)))


def test_a_batch_that_takes_another_way_through_the_net_is_said() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, X = Branching().double(), torch.randn(8, 3).double()
    X[:, 0] = F.pad(torch.ones(4), (0, 4), value=-1.0)
    layers = Layers(Problem(model, (X, torch.arange(8) % 3), batch_size=4))
    assert layers.names == ("one", "head")
    assert "other" in layers.left_out
    with pytest.raises(ValueError, match=r"one to be called once in every batch.* called 0 times"):
        _ = layers["one"].features


def test_a_net_without_layers_and_options_that_are_none() -> None:
    model = nn.Sequential(nn.Flatten(), nn.PReLU())
    problem = Problem(model, (torch.randn(4, 3), torch.tensor([0, 1, 2, 0])))
    with pytest.raises(ValueError, match=r"a net with a layer .* found none: 1: PReLU"):
        Layers(problem)
    with pytest.raises(TypeError, match=r"expected a deepspec\.Problem, got Sequential"):
        Layers(model)  # type: ignore[arg-type]
    _, problem = problem_of(CASES[0])
    with pytest.raises(ValueError, match='shared as "expand" or "reduce", got \'sum\''):
        Layers(problem, shared="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match='convention as "jmlr2020" or "icml2019", got 1'):
        Layers(problem, convention=1)  # type: ignore[arg-type]


def test_a_net_that_is_one_layer() -> None:
    """Its features are the data, its errors p − e."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, X = nn.Linear(4, 3).double(), torch.randn(6, 4).double()
    problem = Problem(model, (X, torch.arange(6) % 3))
    (layer,) = Layers(problem)
    assert layer.name == "Linear"
    assert torch.allclose(layer.features.second_moment.to_dense(), X.T @ X / 6)
    (batch,) = layer.batches()
    expected = problem.probabilities[:, None] - torch.eye(3).double()
    assert torch.allclose(batch.errors[:, :, 0], expected)


def test_what_does_not_fit_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    _, problem = problem_of(CASES[1])
    layer = Layers(problem, shared="expand")[0]
    monkeypatch.setattr("deepspec.layerwise.arrays.free_memory", lambda device: 20000)
    with pytest.raises(MemoryError, match=r"the features of layer 0 of 7 samples.* 2 samples.*red"):
        _ = layer.features
    with pytest.raises(MemoryError, match="the errors of layer 0 of 7 samples"):
        _ = layer.errors


def test_one_part_of_the_parameters() -> None:
    model, problem = problem_of(CASES[0], select=lambda name, _: name in ("0.weight", "2.bias"))
    layers = Layers(problem)
    assert layers.names == ("0", "2")
    assert layers[0].parameter_names == ("0.weight",)
    assert layers[0].weight_in_theta
    assert not layers[0].bias_in_theta
    assert torch.equal(layers["2"].matrix, model[2].weight.detach())
    with pytest.raises(ValueError, match="its weight in θ, but of 2 only the bias is"):
        layers["2"].require_kronecker()
    with pytest.raises(ValueError, match=r"names of tensors in θ, got 4\.bias; θ has 0\.weight"):
        problem.restricted(["4.bias"])


def test_layers_without_one_weight_matrix() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(2, 4, 2, groups=2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)
        )
        X = torch.randn(4, 2, 3, 3).double()
        problem = Problem(built(net, X), (X, torch.tensor([0, 1, 2, 0])))
    layers = Layers(problem)
    with pytest.raises(ValueError, match="0 is a convolution in 2 groups"):
        layers["0"].require_kronecker()
    with pytest.raises(ValueError, match="1 is a normalisation"):
        layers["1"].require_kronecker()
    layers["3"].require_kronecker()
    assert (layers["0"].width_in, layers["0"].width_out, layers["1"].normalizes) == (8, 4, True)


def test_too_many_classes_are_said() -> None:
    _, problem = problem_of(CASES[0])
    assert Layers(problem)[0].notes == ()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 2), nn.Tanh(), nn.Linear(2, 3))
    problem = Problem(net, (torch.randn(6, 4), torch.arange(6) % 3))
    first, last = Layers(problem)
    assert "the errors of 0 have 2 dimensions, fewer than the 3 classes" in first.notes[0]
    assert "3 outliers are impossible" in last.notes[0]
    only = Layers(Problem(nn.Linear(4, 3), (torch.randn(6, 4), torch.arange(6) % 3)))[0]
    assert "only layer: its features are the data" in only.notes[0]
