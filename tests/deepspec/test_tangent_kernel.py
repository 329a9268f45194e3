"""Θ = J Jᵀ layer by layer, and the spectra it gives, against dense brute force."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deepspec import ClassStructure, ColumnSpace, GaussNewton, Hessian, Problem
from deepspec.class_structure import ExactSpectrum, cell_means, class_means, exact_spectrum
from deepspec.layers.affine import LinearFormula
from deepspec.layers.recording import Layer, hooked
from deepspec.neural_tangent_kernel import tangent_kernel
from tests import oracles
from tests.cases import CASES
from tests.layered_cases import (
    NAMES,
    TimeFirst,
    built,
    dense_jacobian,
    dense_theta,
    example,
    problem_of,
    relative,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Using padding=.same. with even"),
    # These nets pad their tokens, which forward mode gets wrong.
    pytest.mark.filterwarnings("ignore:forward mode and reverse mode:RuntimeWarning"),
]
CONVENTIONS = ["jmlr2020", "icml2019"]


@pytest.mark.parametrize("name", NAMES)
def test_theta_is_the_product_of_jacobians(name: str) -> None:
    kernel = tangent_kernel(problem_of(name))
    assert relative(kernel.matrix, dense_theta(name)) < 1e-13
    assert torch.equal(kernel.matrix, kernel.matrix.T)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("language", "all"),
        ("convolutional", "all"),
        ("shared", set()),
        ("grouped", "all but 5.weight 5.bias"),
        ("attention", "all but shared.weight shared.bias"),
    ],
)
def test_formulas_are_used_where_they_hold_and_only_there(name: str, expected: object) -> None:
    problem = problem_of(name)
    found = set(tangent_kernel(problem).by_formula)
    names = set(problem.space.names)
    if isinstance(expected, str):
        expected = names - set(expected.removeprefix("all").removeprefix(" but ").split())
    assert found == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [1, 400, 10**6])
def test_small_blocks_give_the_same(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepspec.neural_tangent_kernel.kernel.BLOCK_BYTES", block)
    problem = problem_of(name)
    size = problem.num_samples * problem.num_classes
    kernel = tangent_kernel(problem, memory=size**2 * 8 * 5 // 4 + block)
    assert relative(kernel.matrix, dense_theta(name)) < 1e-13


@pytest.mark.parametrize("name", ["language", "grouped", "mlp"])
@pytest.mark.parametrize("elementwise", [-(10**6), 10**6])
def test_either_way_to_a_layers_share_gives_the_same(
    name: str, elementwise: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deepspec.neural_tangent_kernel import layer_contributions as shares

    monkeypatch.setattr(shares, "ELEMENTWISE", elementwise)
    assert relative(tangent_kernel(problem_of(name)).matrix, dense_theta(name)) < 1e-13


@pytest.mark.parametrize("name", ["mlp", "convolutional", "grouped", "language"])
@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_frozen_parameters_do_not_count(name: str, frozen: str) -> None:
    problem = problem_of(name, select=lambda n, _: not n.endswith(frozen))
    model, _, _, _ = example(name)
    kept = torch.cat(
        [
            torch.full((parameter.numel(),), not n.endswith(frozen))
            for n, parameter in model.named_parameters()
        ]
    )
    J = dense_jacobian(name)[:, kept]
    assert relative(tangent_kernel(problem).matrix, J @ J.T) < 1e-13


def test_float32_agrees_to_its_precision() -> None:
    for name in ("grouped", "language", "attention"):
        kernel = tangent_kernel(problem_of(name, dtype=torch.float32))
        assert kernel.matrix.dtype == torch.float32
        assert relative(kernel.matrix.double(), dense_theta(name)) < 1e-5


def test_as_many_steps_as_samples_are_not_taken_for_samples() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x, labels = torch.randn(4, 4, 4).double(), torch.tensor([0, 1, 2, 0])
        model = built(TimeFirst(), x)
    kernel = tangent_kernel(Problem(model, (x[:, :2], labels), batch_size=2))
    J = oracles.jacobian(model, x[:, :2]).flatten(0, 1)
    assert relative(kernel.matrix, J @ J.T) < 1e-13
    assert kernel.by_formula == ("head.weight", "head.bias")


def test_an_output_that_a_hook_changes_is_noticed() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
        x, labels = torch.randn(4, 4).double(), torch.tensor([0, 1, 2, 0])
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    problem = Problem(model, (x, labels))
    with pytest.warns(RuntimeWarning, match="do not describe Sequential"):
        kernel = tangent_kernel(problem)
    J = oracles.jacobian(model, x).flatten(0, 1)
    assert relative(kernel.matrix, J @ J.T) < 1e-13
    assert kernel.by_formula == ()


def test_hooks_are_gone_whatever_happens() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    layer = Layer("0", model[0], LinearFormula(True, True), {"weight": "0.weight"})
    with pytest.raises(KeyboardInterrupt), hooked([layer]):
        raise KeyboardInterrupt
    assert not model[0]._forward_hooks
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    problem = Problem(model, (torch.randn(3, 2), torch.tensor([0, 1, 0])))
    tangent_kernel(problem)
    assert model.training
    assert not model[0]._forward_hooks
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_snapshot_counts_not_what_the_model_became() -> None:
    name = "convolutional"
    model, features, labels, _ = example(name)
    problem = Problem(model, (features, labels), num_classes=4)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.add_(1)
    assert relative(tangent_kernel(problem).matrix, dense_theta(name)) < 1e-13


def test_asked_again_it_is_the_same_object() -> None:
    problem = problem_of("mlp")
    kernel = tangent_kernel(problem)
    assert tangent_kernel(problem) is kernel
    assert kernel.factor is kernel.factor
    assert relative(kernel.factor @ kernel.factor.T, kernel.matrix) < 1e-13


def test_what_does_not_fit_says_how_much_would() -> None:
    problem = problem_of("mlp")
    # 4 samples of 3 logits need 1.25 · 12² · 8 bytes.
    with pytest.raises(MemoryError, match=r"9 rows × 3 classes.*; 4 rows would fit"):
        tangent_kernel(problem, memory=1500)


# ---- spectra ------------------------------------------------------------------------------


def assert_spectrum(spectrum: ExactSpectrum, dense: Tensor) -> None:
    """All eigenvalues to 1e-10 of the largest, and p of them."""
    expected = torch.linalg.eigvalsh(dense)
    found = torch.cat([spectrum.eigenvalues, torch.zeros(spectrum.zeros).double()])
    assert spectrum.size == len(found) == len(expected)
    assert torch.equal(spectrum.eigenvalues, spectrum.eigenvalues.sort(descending=True).values)
    scale = float(expected.abs().max())
    assert float((found.sort().values - expected).abs().max()) < 1e-10 * scale
    assert bool((spectrum.eigenvalues != 0).all())


@pytest.mark.parametrize("name", [case.name for case in CASES] + ["attention"])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_every_part_and_combination_has_its_dense_spectrum(name: str, convention: str) -> None:
    problem = problem_of(name)
    parts = ClassStructure(problem, convention)
    G = GaussNewton(problem)
    kernel = tangent_kernel(problem)
    operators = [
        *parts.named().values(),
        *(G, parts.means, parts.total, 2 * G, G - parts.between_class, -1 * G),
        *(parts.between_class - parts.cross_class, G - parts.means, G + parts.within_class),
    ]
    for operator in operators:
        J = dense_jacobian(name)
        pushed = J.view(problem.num_samples, problem.num_classes, -1)
        dense = J.T @ operator.kernel(pushed).view(J.shape)
        assert_spectrum(exact_spectrum(operator, kernel=kernel), (dense + dense.T) / 2)


@pytest.mark.parametrize("name", [case.name for case in CASES])
def test_projection_knockouts(name: str) -> None:
    problem = problem_of(name)
    parts = ClassStructure(problem)
    G = GaussNewton(problem)
    means, classes = cell_means(parts).projector(), class_means(parts).projector()
    columns = torch.linspace(-1, 1, 2 * problem.size).double().square().view(-1, 2)
    for operator in [
        G.project_out(means),
        (G - parts.cross_class).project_out(classes),
        parts.within_class.project_out(ColumnSpace(columns)),
        G.project_out(classes).project_out(ColumnSpace(columns)),
    ]:
        assert_spectrum(exact_spectrum(operator), operator.to_dense())


def test_zeros_are_counted() -> None:
    problem = problem_of("mlp")
    spectrum = exact_spectrum(ClassStructure(problem).between_class)
    assert len(spectrum.eigenvalues) == 3
    assert spectrum.zeros == problem.size - 3


def test_float32_spectra_agree_to_their_precision() -> None:
    exact, single = problem_of("mlp"), problem_of("mlp", dtype=torch.float32)
    for make in (GaussNewton, lambda p: GaussNewton(p) - ClassStructure(p).between_class):
        left, right = exact_spectrum(make(single)), exact_spectrum(make(exact))
        assert left.eigenvalues.dtype == torch.float64
        top = slice(0, 5)
        difference = (left.eigenvalues[top] - right.eigenvalues[top]).abs().max()
        assert float(difference) < 1e-5 * float(right.eigenvalues[0])


@settings(max_examples=8, deadline=None)
@given(st.permutations(range(9)), st.integers(1, 9))
def test_the_spectrum_knows_no_order_and_no_batches(order: list[int], batch_size: int) -> None:
    model, features, labels, _ = example("mlp")
    data = (features[order], labels[order])
    G = GaussNewton(Problem(model, data, batch_size=batch_size))
    reference = exact_spectrum(GaussNewton(problem_of("mlp"))).eigenvalues
    found = exact_spectrum(G).eigenvalues
    assert relative(found[:15], reference[:15]) < 1e-12


def test_means_from_the_kernel_are_the_means() -> None:
    structure = ClassStructure(problem_of("convolutional"))
    kernel = tangent_kernel(structure.problem)
    expected = cell_means(structure).eigenvalues()
    assert relative(cell_means(structure, kernel).eigenvalues(), expected) < 1e-12


def test_a_spectrum_is_saved_and_loaded(tmp_path: Path) -> None:
    spectrum = exact_spectrum(GaussNewton(problem_of("mlp")))
    spectrum.save(tmp_path / "one")
    again = ExactSpectrum.load(tmp_path / "one")
    assert torch.equal(again.eigenvalues, spectrum.eigenvalues)
    assert (again.zeros, again.operator) == (spectrum.zeros, "G")
    from deepspec.storage.checkpoint import save_state

    save_state(tmp_path / "two", {"kind": "eigenpairs"}, {"values": torch.ones(1)})
    with pytest.raises(ValueError, match=r"expected a saved ExactSpectrum .* found 'eigenpairs'"):
        ExactSpectrum.load(tmp_path / "two")


def test_spectra_that_do_not_fit_are_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = "deepspec.class_structure._exact_spectrum."
    free = "deepspec.engine.distributed.free_memory"
    monkeypatch.setattr(free, lambda device: 5.25 * 9 * 9 * 8)
    monkeypatch.setattr(place + "tangent_kernel", lambda problem: 1 / 0)
    with pytest.raises(MemoryError, match="3 rows would fit"):
        exact_spectrum(GaussNewton(problem_of("mlp")))


def test_the_hessian_has_no_such_spectrum() -> None:
    with pytest.raises(TypeError, match=r"expected an operator JᵀKJ .* got Hessian"):
        exact_spectrum(Hessian(problem_of("mlp")))


def test_the_kernel_of_another_problem_is_refused() -> None:
    kernel = tangent_kernel(problem_of("missing class"))
    with pytest.raises(ValueError, match="tangent kernel of the operator's problem"):
        exact_spectrum(GaussNewton(problem_of("mlp")), kernel)


def test_a_kernel_is_kept_as_long_as_somebody_holds_it() -> None:
    problem = problem_of("mlp")
    held = tangent_kernel(problem)
    assert tangent_kernel(problem) is held
    with pytest.raises(MemoryError, match="rows would fit"):
        tangent_kernel(problem, memory=1)
