"""Problem: what it accepts, what it refuses, and that it leaves no trace."""

import copy
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from deepspec import ClassStructure, GaussNewton, Hessian, Problem, Residual
from tests import oracles
from tests.cases import CASES, hold

Parts = tuple[nn.Module, Tensor, Tensor]


@pytest.fixture
def parts() -> Parts:
    return CASES[0].build()


def product(problem: Problem) -> Tensor:
    return GaussNewton(problem) @ torch.ones(problem.size, dtype=problem.dtype)


class Tokens(Dataset):
    def __init__(self, features: Tensor, labels: Tensor) -> None:
        self.features, self.labels = features, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"x": self.features[index], "labels": self.labels[index]}


class Wrapped(nn.Module):
    """Takes keyword arguments and returns an object with .logits, as language models do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.inner(x))


def test_every_form_of_data_gives_the_same_matrix(parts: Parts) -> None:
    model, X, y = parts
    reference = product(Problem(model, (X, y)))
    dataset = TensorDataset(X, y)
    for data in [[X, y], dataset, DataLoader(dataset, batch_size=4), DataLoader(dataset)]:
        assert torch.allclose(product(Problem(model, data, batch_size=3)), reference, atol=1e-14)
    mappings = DataLoader(Tokens(X, y), batch_size=4)
    assert torch.allclose(product(Problem(Wrapped(model), mappings)), reference, atol=1e-14)


def test_the_callers_model_and_generators_are_untouched() -> None:
    model, images, labels = CASES[1].build()
    model.train()
    model[1].eval()
    model[0].weight.requires_grad_(False)
    model[4].weight.grad = torch.ones_like(model[4].weight)
    before = copy.deepcopy(model.state_dict())
    flags = [m.training for m in model.modules()]
    needs = [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    loader = DataLoader(TensorDataset(images, labels), batch_size=3)
    problem = Problem(model, loader)
    for operator in (Hessian(problem), GaussNewton(problem), ClassStructure(problem).cross_class):
        for way in ("layers", "linearised"):
            hold(problem, way)
            operator.prepare(1)
            _ = operator @ torch.ones(problem.size, dtype=torch.float64)
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == needs
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert torch.equal(model[4].weight.grad, torch.ones_like(model[4].weight))
    assert model[8].weight.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_an_interrupt_leaves_the_flags_as_they_were(parts: Parts) -> None:
    model, X, y = parts
    problem = Problem(model, (X, y))
    model.train()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    handle = model[2].register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        product(problem)
    handle.remove()
    assert all(m.training for m in model.modules())
    assert torch.isfinite(product(problem)).all()


def test_it_is_a_snapshot(parts: Parts) -> None:
    model, X, y = parts
    problem = Problem(model, (X, y))
    before, mark = product(problem), problem.fingerprint()
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert torch.equal(product(problem), before)
    assert Problem(model, (X, y)).fingerprint() != mark


def test_loss_gradient_and_error_are_those_of_the_model(parts: Parts) -> None:
    model, X, y = parts
    problem = Problem(model, (X, y), batch_size=4)
    loss = nn.functional.cross_entropy(model(X), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    assert problem.loss == pytest.approx(loss.item(), abs=1e-14)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    assert torch.allclose(problem.gradient(), flat, atol=1e-15)
    assert problem.error_rate == float((model(X).argmax(1) != y).double().mean())


def test_a_subset_of_parameters_by_name(parts: Parts) -> None:
    model, X, y = parts
    whole = Hessian(Problem(model, (X, y))).to_dense()
    last = Problem(model, (X, y), select=lambda name, _: name.startswith("4."))
    assert torch.allclose(Hessian(last).to_dense(), whole[-last.size :, -last.size :], atol=1e-14)


@pytest.mark.parametrize("way", ["layers", "linearised"])
@pytest.mark.parametrize("budget", [0, 20_000, 10**9, 0.5])
def test_the_memory_budget_changes_nothing_but_speed(budget: int | float, way: str) -> None:
    model, X, y = CASES[1].build()
    tight = Problem(model, (X, y), batch_size=2, memory_budget=0)
    problem = Problem(model, (X, y), batch_size=2, memory_budget=budget)
    hold(problem, way)
    v = torch.linspace(-1, 1, problem.size, dtype=torch.float64)
    for kind in (Hessian, GaussNewton, Residual):
        operator = kind(problem)
        operator.prepare(1)
        assert torch.allclose(operator @ v, kind(tight) @ v, rtol=1e-12, atol=1e-14)
    cross = ClassStructure(problem).cross_class
    cross.prepare(1)
    expected = ClassStructure(tight).cross_class @ v
    assert torch.allclose(cross @ v, expected, rtol=1e-12, atol=1e-15)
    held = problem.plan["jacobian: batches held"]
    assert held == 0 if budget == 0 else held >= 1 if budget == 10**9 else held in range(5)


def test_a_plan_repeats_its_choices_bit_for_bit() -> None:
    model, X, y = CASES[1].build()
    first = Problem(model, (X, y), batch_size=2, memory_budget=40_000)
    v = torch.linspace(-1, 1, first.size, dtype=torch.float64)
    again = Problem(model, (X, y), batch_size=2, memory_budget=10**9)
    for way in ("layers", "linearised"):
        for kind in (GaussNewton, Hessian):
            hold(first, way)
            kind(first).prepare(1)
            result = kind(first) @ v
            again.plan = first.plan
            kind(again).prepare(1)
            assert torch.equal(kind(again) @ v, result)


def test_running_out_of_gpu_memory_halves_the_batch(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, X, y = parts
    problem = Problem(model, (X, y), batch_size=8)
    expected = product(problem)
    original = type(model).forward
    sizes = []

    def greedy(self: nn.Module, x: Tensor) -> Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (pretended)")
        return original(self, x)

    monkeypatch.setattr(type(model), "forward", greedy)
    with pytest.warns(ResourceWarning, match="half the size"):
        result = product(problem)
    assert torch.allclose(result, expected, atol=1e-14)
    assert sizes[-1] <= 2


def test_memory_that_does_not_suffice_for_one_sample_is_an_error(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, X, y = parts
    problem = Problem(model, (X, y), batch_size=1)

    def never(self: nn.Module, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory (pretended)")

    monkeypatch.setattr(type(model), "forward", never)
    with pytest.raises(torch.OutOfMemoryError):
        product(problem)


class Named(nn.Linear):
    """Returns a dictionary."""

    def __init__(self, key: str) -> None:
        super().__init__(4, 3)
        self.key = key

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {self.key: super().forward(x)}


class Careless(nn.Linear):
    """Writes to its input and to a buffer."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x -= 1.0
        return super().forward(torch.tanh(x))


def test_a_model_that_writes_to_its_input_or_buffers_harms_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    X, y = torch.randn(6, 4, generator=generator).double(), torch.arange(6) % 3
    before, model = X.clone(), Careless().double()
    problem = Problem(model, (X, y))
    plain = nn.Linear(4, 3).double()
    plain.load_state_dict({"weight": model.weight, "bias": model.bias})
    G = GaussNewton(problem)
    dense = oracles.gauss_newton(plain, torch.tanh(X - 1.0))
    assert torch.allclose(G.to_dense(), dense, atol=1e-14)
    for way in ("layers", "linearised"):
        hold(problem, way)
        G.prepare(1)
        assert torch.allclose(G.to_dense(), dense, atol=1e-14)
    assert torch.equal(X, before)
    assert float(model.calls) == 0.0


def test_dictionaries_with_logits_are_understood() -> None:
    X, y = torch.ones(3, 4), torch.arange(3)
    assert Problem(Named("logits"), (X, y)).num_classes == 3


def test_products_work_under_no_grad(parts: Parts) -> None:
    model, X, y = parts
    problem = Problem(model, (X, y))
    expected = product(problem)
    with torch.no_grad():
        assert torch.equal(product(problem), expected)
        assert torch.isfinite(Hessian(problem) @ expected).all()


class Padded0(nn.Module):
    """PyTorch's forward mode forgets padding_idx; an unused parameter comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(3))
        self.embed = nn.Embedding(5, 3, padding_idx=0)
        self.head = nn.Linear(3, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(torch.tanh(self.embed(tokens).mean(dim=1)))


# Padding may be in any sample and any batch.
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_forward_mode_that_disagrees_with_reverse_mode_is_not_used(place: int) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Padded0().double()
        with torch.no_grad():
            model.embed.weight.normal_()
    tokens, y = torch.tensor([[3, 1], [2, 3], [4, 1], [1, 2]]), torch.tensor([0, 1, 2, 0])
    tokens[place, 0] = 0
    with (
        pytest.warns(RuntimeWarning, match="different derivatives of Padded0"),
        pytest.warns(RuntimeWarning, match="do not depend on unused"),
    ):
        problem = Problem(model, (tokens, y), batch_size=2)
    G = GaussNewton(problem).to_dense()
    H = Hessian(problem)
    hold(problem, "linearised")
    H.prepare(1)
    H, E = H.to_dense(), Residual(problem).to_dense()
    assert float((G - G.T).abs().max()) < 1e-14
    assert float((H - H.T).abs().max()) < 1e-14
    assert float((H - G - E).abs().max()) < 1e-14


def test_a_wrong_second_derivative_of_pytorch_is_noticed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
        model = nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 3)).double()
        X, y = torch.randn(8, 4).double(), torch.arange(8) % 3
    with pytest.warns(RuntimeWarning, match="_WeightNorm"):
        problem = Problem(model, (X, y))
    G = GaussNewton(problem).to_dense()
    assert float((G - G.T).abs().max()) < 1e-14
    with pytest.raises(ArithmeticError, match="weight_norm"):
        Hessian(problem).to_dense()


def test_operators_can_be_summed_and_held_together(parts: Parts) -> None:
    model, X, y = parts
    problem = Problem(model, (X, y), memory_budget=10**9)
    G, H = GaussNewton(problem), Hessian(problem)
    v = torch.linspace(-1, 1, problem.size, dtype=torch.float64)
    whole = sum(ClassStructure(problem).named().values())
    assert torch.allclose(whole @ v, G @ v, atol=1e-15)
    difference = H - G
    hold(problem)
    difference.prepare(1)
    assert problem.plan["jacobian: batches held"] == problem.plan["hessian: batches held"] == 1
    assert problem.engine.cache.bytes() > 0
    assert torch.allclose(difference @ v, Residual(problem) @ v, atol=1e-14)
    with pytest.raises(TypeError, match="an operator to add"):
        _ = 3 + G


class Padded(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, : 2 + len(x) % 2]


def test_logits_of_changing_width_are_refused() -> None:
    X, y = torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)
    with pytest.raises(ValueError, match="one width"):
        Problem(Padded(4, 3), (X, y), batch_size=2)


class Shrinking(Dataset):
    """One sample fewer at the second pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.ones(4), 0


def test_data_that_shrink_between_passes_are_refused() -> None:
    class Forgetful(DataLoader):
        passes = 0

        def __len__(self) -> int:
            return 2 if Forgetful.passes == 1 else 1

        def __iter__(self):
            Forgetful.passes += 1
            yield torch.ones(2, 4), torch.zeros(2, dtype=torch.long)
            if Forgetful.passes == 1:
                yield torch.ones(2, 4), torch.zeros(2, dtype=torch.long)

    with pytest.raises(ValueError, match="4 rows at the first and 2"):
        Problem(nn.Linear(4, 3), Forgetful(Shrinking()))


def test_nothing_warns_on_an_ordinary_run(parts: Parts) -> None:
    model, X, y = parts
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem = Problem(model, (X, y))
        for operator in (Hessian(problem), GaussNewton(problem)):
            operator.prepare(10**9)
            _ = operator @ torch.ones(problem.size, dtype=torch.float64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_gives_what_the_cpu_gives() -> None:
    for case in CASES:
        model, X, y = case.build()
        on_cpu, on_gpu = Problem(model, (X, y)), Problem(model.cuda(), (X, y), batch_size=3)
        assert on_gpu.device.type == "cuda"
        v = torch.linspace(-1, 1, on_cpu.size, dtype=torch.float64)
        for kind in (Hessian, GaussNewton, Residual):
            for way in ("nothing", "layers", "linearised"):
                hold(on_gpu, way)
                operator = kind(on_gpu)
                operator.prepare(1)
                assert torch.allclose((operator @ v.cuda()).cpu(), kind(on_cpu) @ v, atol=1e-12)
