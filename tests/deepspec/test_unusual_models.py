"""Models and data that PyTorch itself answers in riddles: refused in words, or just right."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from deepspec import ClassStructure, GaussNewton, Hessian, Problem, attribute, exact_spectrum
from tests import oracles


def data() -> tuple[Tensor, Tensor]:
    X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
    return X, torch.arange(6) % 3


def net() -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Linear(4, 3).double()


class Recomputed(nn.Module):
    """Forgets what is inside its second layer, and computes it again when it is needed."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4).double(), nn.Linear(4, 3).double()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self._rest, self.first(x), use_reentrant=self.reentrant)

    def _rest(self, hidden: Tensor) -> Tensor:
        return self.second(torch.tanh(hidden))


class Detached(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


class Sparse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embed(x.abs().long()).mean(dim=1))


class Half(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (lambda: nn.LazyLinear(3), ValueError, "run the model once"),
        (lambda: nn.Linear(4, 3, dtype=torch.complex64), ValueError, "real parameters"),
        (lambda: Detached(4, 3).double(), RuntimeError, "detach"),
        (Sparse, RuntimeError, "sparse=False"),
        (lambda: Half(4, 3).double(), RuntimeError, r"batch of \(6, 4\) float64.*dtype="),
        (lambda: nn.Linear(5, 3).double(), RuntimeError, r"to be run on a batch of \(6, 4\)"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_models_are_refused_with_a_remedy(model, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Problem(model(), data())


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_is_done_without(reentrant: bool) -> None:
    model = Recomputed(reentrant)
    problem = Problem(model, data())
    G, H = GaussNewton(problem).to_dense(), Hessian(problem).to_dense()
    plain = nn.Sequential(model.first, nn.Tanh(), model.second)
    assert float((G - oracles.gauss_newton(plain, data()[0])).abs().max()) < 1e-14
    assert float((H - oracles.hessian(plain, *data())).abs().max()) < 1e-14


class TwoViews(nn.Module):
    """The first dimension of its layers' inputs are two views, not the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(torch.stack([x, x.flip(1)])).tanh().mean(0))


@pytest.mark.parametrize("samples", [1, 2, 3, 6])
def test_a_first_dimension_that_is_the_sample_count_by_chance(samples: int) -> None:
    X, y = data()
    G = GaussNewton(Problem(TwoViews(), (X[:samples], y[:samples]), num_classes=3))
    dense = torch.linalg.eigvalsh(G.to_dense()).flip(0)[:2]
    assert float((exact_spectrum(G).eigenvalues[:2] - dense).abs().max()) < 1e-12


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return self.head(self.rnn(packed)[1][-1])


def test_what_vmap_refuses_is_done_one_by_one() -> None:
    rows = [{"x": torch.randn(4, 4), "lengths": 1 + i % 4, "labels": i % 3} for i in range(7)]
    problem = Problem(Packed(), DataLoader(rows, batch_size=5), dtype=torch.float64)
    G, columns = GaussNewton(problem), torch.eye(problem.size, dtype=torch.float64)[:, :4]
    single = torch.stack([G @ column.contiguous() for column in columns.T], dim=1)
    assert float((G @ columns - single).abs().max()) < 1e-14


def test_inference_mode_around_everything_changes_nothing() -> None:
    model = net()
    expected = Hessian(Problem(model, data())).to_dense()
    with torch.inference_mode():
        problem = Problem(model, data())
        found = Hessian(problem).to_dense()
        G = GaussNewton(problem).to_dense()
    assert torch.equal(found, expected)
    assert float((G - expected).abs().max()) < 1e-14


def test_autocast_is_refused_wherever_it_begins() -> None:
    problem = Problem(net(), data())
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="autocast"):
            Problem(net(), data())
        with pytest.raises(RuntimeError, match="autocast"):
            _ = GaussNewton(problem) @ torch.ones(problem.size).double()


class Flagged(nn.Linear):
    """Takes a tensor by sample, and things that are not."""

    def forward(self, x: Tensor, scale: float, mask: None, temperature: Tensor) -> Tensor:
        assert mask is None
        return scale * super().forward(x) / temperature


def test_what_is_not_by_sample_goes_to_the_model_as_it_is() -> None:
    X, y = data()

    def collate(rows: list) -> dict:
        index = torch.tensor([int(i) for i in rows])
        also = {"label": None, "scale": 2.0, "mask": None, "temperature": torch.tensor(4.0)}
        return {"x": X[index], "labels": y[index].tolist(), **also}

    loader = DataLoader(range(6), batch_size=4, collate_fn=collate)
    model = Flagged(4, 3).double()
    plain = nn.Linear(4, 3).double()
    plain.load_state_dict({k: v / 2 for k, v in model.state_dict().items()})
    found = GaussNewton(Problem(model, loader)).to_dense()
    expected = oracles.gauss_newton(plain, X) / 4
    assert float((found - expected).abs().max()) < 1e-14


def test_lists_of_samples_and_numpy_integers_are_understood() -> None:
    X, y = data()
    model = net()
    expected = GaussNewton(Problem(model, (X, y))).to_dense()
    samples = [(x, int(label)) for x, label in zip(X, y, strict=True)]
    found = GaussNewton(Problem(model, samples, batch_size=np.int64(4))).to_dense()
    assert float((found - expected).abs().max()) < 1e-15


@pytest.mark.parametrize(
    ("loader", "error", "words"),
    [
        (lambda X, y: DataLoader([(X[0], 1)], batch_size=None), ValueError, "batch_size"),
        (
            lambda X, y: DataLoader(
                list(zip(X, y, strict=True)), 4, collate_fn=lambda r: (X[:4], y[:2])
            ),
            ValueError,
            "one label for each input",
        ),
        (
            lambda X, y: DataLoader(
                list(zip(X, y, strict=True)), 4, collate_fn=lambda r: (X[:4], ["a"] * 4)
            ),
            TypeError,
            "number the classes",
        ),
    ],
)
def test_loaders_are_refused_in_words(loader, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        Problem(net(), loader(*data()))


def test_a_model_is_no_problem_and_a_name_no_dtype() -> None:
    for kind in (GaussNewton, Hessian, ClassStructure, attribute):
        with pytest.raises(TypeError, match=r"deepspec.Problem\(model, data\)"):
            kind(net())
    with pytest.raises(TypeError, match=r"torch\.float64"):
        Problem(net(), data(), dtype="float64")
    with pytest.raises(ValueError, match=r"draws as a whole number.*2\.5"):
        attribute(Problem(net(), data()), draws=2.5)
    with pytest.raises(ValueError, match="seed"):
        attribute(Problem(net(), data()), seed=-1)


def test_the_remedy_for_max_norm_keeps_the_logits() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(7, 4, max_norm=1.0), nn.Flatten(), nn.Linear(12, 3))
        tokens = torch.randint(0, 7, (9, 3))
    model.double()
    logits = model(tokens).detach()
    with pytest.raises(ValueError, match=r"writes to 0\.weight; .*renorm_\(2, 0, module\.max_norm"):
        Problem(model, (tokens, torch.arange(9) % 3))
    model[0].weight.data.renorm_(2, 0, model[0].max_norm)
    model[0].max_norm = None
    problem = Problem(model, (tokens, torch.arange(9) % 3))
    assert torch.equal(model(tokens), logits)
    assert torch.isfinite(Hessian(problem) @ torch.ones(problem.size).double()).all()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_remedy_for_weight_norm_keeps_the_parameters() -> None:
    """Written out on the same g and v, the Hessian is that of the net as it is."""

    class WrittenOut(nn.Module):
        def forward(self, g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return g * v / v.norm(dim=1, keepdim=True)

        def right_inverse(self, w: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return w.norm(dim=1, keepdim=True), w

    X = torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    nets = []
    for normed in (nn.utils.parametrizations.weight_norm, None):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        if normed:
            normed(net[0])
        else:
            nn.utils.parametrize.register_parametrization(net[0], "weight", WrittenOut())
        nets.append(net)
    given, written = (Problem(net, (X, torch.arange(9) % 3)) for net in nets)
    names = [name.rpartition(".")[2] for name in given.space.names]
    assert names == [name.rpartition(".")[2] for name in written.space.names]
    assert float((given.logits - written.logits).abs().max()) < 1e-14
    G, expected = GaussNewton(given).to_dense(), GaussNewton(written).to_dense()
    assert float((G - expected).abs().max()) < 1e-13
    assert torch.isfinite(Hessian(written) @ torch.ones(written.size).double()).all()
