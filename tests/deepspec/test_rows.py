"""Rows that are tokens and pixels, every loss and every weighting, against PyTorch's own loss."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import deepspec
from deepspec import GaussNewton, Hessian, Problem, Residual
from tests.row_cases import FORMS, LENGTH, Form, V, dense, mlp, segmenter, soft_tokens, transformer

TOLERANCE = 1e-10


def close(found: Tensor, expected: Tensor) -> bool:
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) < TOLERANCE * scale


@pytest.fixture(scope="module", params=FORMS, ids=[form.name for form in FORMS])
def case(request: pytest.FixtureRequest) -> tuple[Form, Problem, dict[str, Tensor]]:
    form = request.param
    net, inputs, labels = form.build()
    problem = Problem(net, (inputs, labels), batch_size=2, memory_budget=0, **form.options)
    return form, problem, dense(form, net, inputs, labels)


def test_loss_gradient_and_matrices_are_pytorchs(
    case: tuple[Form, Problem, dict[str, Tensor]],
) -> None:
    _, problem, expected = case
    assert abs(problem.loss - float(expected["loss"])) < TOLERANCE
    assert close(problem.gradient(), expected["gradient"])
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(problem.size, 3, generator=generator, dtype=torch.float64)
    for name, operator in (
        ("G", GaussNewton(problem)),
        ("Hess", Hessian(problem)),
        ("E", Residual(problem)),
    ):
        assert close(operator @ v, expected[name] @ v), name


def test_exact_spectra_are_those_of_dense_matrices(
    case: tuple[Form, Problem, dict[str, Tensor]],
) -> None:
    _, problem, expected = case
    found = deepspec.exact_spectrum(GaussNewton(problem)).eigenvalues
    values = torch.linalg.eigvalsh(expected["G"]).flip(0)
    assert close(found, values[: len(found)])
    assert float(values[len(found) :].abs().max()) < TOLERANCE if len(found) < len(values) else True


# ---- class structure and attribution of rows ----------------------------------------------------


def probe(problem: Problem) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(problem.size, 2, dtype=torch.float64, generator=generator)


def dense_parts(expected: dict[str, Tensor], problem: Problem, mask: Tensor) -> dict[str, Tensor]:
    """The four parts by loops over rows and classes, from PyTorch's logits and Jacobian."""
    J = expected["J"].flatten(0, -3)[mask.flatten()]
    probabilities = expected["outputs"].flatten(0, -2)[mask.flatten()].softmax(dim=1)
    classes = J.shape[1]
    g = torch.einsum("icp,icd->idp", J, probabilities[:, :, None] - torch.eye(classes))
    w = problem.weights[:, None] * probabilities
    parts = {name: torch.zeros(J.shape[2], J.shape[2], dtype=J.dtype) for name in PARTS}
    for c in problem.labels.unique().tolist():
        of = problem.labels == c
        weight = w[of].sum(dim=0)
        means = torch.einsum("id,idp->dp", w[of], g[of]) / weight[:, None]
        others = torch.arange(classes) != c
        mean = (weight[others, None] * means[others]).sum(dim=0) / weight[others].sum()
        parts["between_class"] += weight[others].sum() * torch.outer(mean, mean)
        parts["own_class"] += weight[c] * torch.outer(means[c], means[c])
        off = means[others] - mean
        parts["cross_class"] += off.T @ (weight[others, None] * off)
        scatter = (g[of] - means).flatten(0, 1)
        parts["within_class"] += scatter.T @ (w[of].flatten()[:, None] * scatter)
    return parts


PARTS = ("between_class", "cross_class", "within_class", "own_class")


@pytest.mark.parametrize("name", ["padding", "smoothed", "soft", "row weights"])
def test_parts_of_token_rows_are_those_of_loops(name: str) -> None:
    form = next(form for form in FORMS if form.name == name)
    net, inputs, labels = form.build()
    problem = Problem(net, (inputs, labels), **form.options)
    expected = dense(form, net, inputs, labels)
    hard = labels if labels.ndim == 2 else torch.zeros(labels.shape[:2])
    mask = hard != -100
    if name == "row weights":
        mask = mask & (form.options["row_weights"] > 0)
    parts = dense_parts(expected, problem, mask)
    v = probe(problem)
    array = deepspec.gradients(problem)
    structure = deepspec.ClassStructure(problem).named()
    for part in PARTS:
        assert close(array.parts[part] @ v, parts[part] @ v), part
        assert close(structure[part] @ v, parts[part] @ v), part
    assert close(sum(parts.values()), expected["G"])
    assert close(array.second_moment @ v, expected["G"] @ v)
    values = torch.linalg.eigvalsh(parts["between_class"]).flip(0)
    found = array.eigenvalues("between_class")
    assert close(found, values[: len(found)])
    left = array.knock_out("between_class")
    values = torch.linalg.eigvalsh(expected["G"] - parts["between_class"]).flip(0)
    assert close(left, values[: len(left)])
    means = deepspec.class_structure.cell_means(deepspec.ClassStructure(problem))
    together = parts["between_class"] + parts["cross_class"] + parts["own_class"]
    values = torch.linalg.eigvalsh(together).flip(0)
    assert close(means.eigenvalues()[:20], values[:20])


def test_tokens_can_be_attributed() -> None:
    net, tokens, labels = transformer_of_few_classes()
    problem = Problem(net, (tokens, labels))
    found = deepspec.attribute(problem, draws=2).train
    expected = dense(Form("", lambda: None, token_loss_of_few), net, tokens, labels)  # type: ignore[arg-type]
    assert found.samples == int((labels != -100).sum())
    assert abs(found.trace - float(expected["G"].trace())) < TOLERANCE
    parts = {part.name: part.trace for part in found.decompositions[0].parts}
    assert abs(sum(v for k, v in parts.items() if k in PARTS) - found.trace) < 1e-8
    spectra = {s.operator: s for s in found.hessian_spectra}
    values = torch.linalg.eigvalsh(expected["Hess"]).flip(0)
    assert close(spectra["Hess"].top[:3], values[:3])


def transformer_of_few_classes() -> tuple[nn.Module, Tensor, Tensor]:
    from tests.row_cases import TinyTransformer

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        net = TinyTransformer(4).double().eval()
        tokens = torch.randint(0, 4, (3, LENGTH))
        labels = torch.randint(0, 4, (3, LENGTH))
    labels[0, 3:] = -100
    return net, tokens, labels


def token_loss_of_few(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z.flatten(0, 1), y.flatten())


# ---- groups of classes --------------------------------------------------------------------------


GROUPS = [list(range(7)), [7, 21], [14, *range(8, 14)], [*range(15, 21), *range(22, V)]]


def dense_groups(expected: dict[str, Tensor], problem: Problem, mask: Tensor) -> dict[str, Tensor]:
    """Parts of groups by loops: cells (γ, γ') of all c' ≠ y in γ', and own cells of c' = y."""
    J = expected["J"].flatten(0, -3)[mask.flatten()]
    p = expected["outputs"].flatten(0, -2)[mask.flatten()].softmax(dim=1)
    g = torch.einsum("icp,icd->idp", J, p[:, :, None] - torch.eye(V))
    w = problem.weights[:, None] * p
    own = torch.nn.functional.one_hot(problem.labels, V).bool()
    of = torch.zeros(V, dtype=torch.long)
    for number, members in enumerate(GROUPS):
        of[members] = number
    size = J.shape[2]
    parts = {name: torch.zeros(size, size, dtype=J.dtype) for name in PARTS}
    scatter = torch.einsum("ic,icp,icq->pq", w, g, g)
    for a in of[problem.labels].unique().tolist():
        rows = (of[problem.labels] == a)[:, None]
        chosen = {b: rows & ~own & (of == b) for b in range(len(GROUPS))}
        weight = {b: w[c].sum() for b, c in chosen.items() if bool(c.any())}
        mean = {b: (w[chosen[b]][:, None] * g[chosen[b]]).sum(0) / weight[b] for b in weight}
        total = sum(weight.values())
        center = sum(weight[b] * mean[b] for b in weight) / total
        parts["between_class"] += total * torch.outer(center, center)
        for b in weight:
            parts["cross_class"] += weight[b] * torch.outer(mean[b] - center, mean[b] - center)
            scatter = scatter - weight[b] * torch.outer(mean[b], mean[b])
        mine = rows & own
        own_mean = (w[mine][:, None] * g[mine]).sum(0) / w[mine].sum()
        parts["own_class"] += w[mine].sum() * torch.outer(own_mean, own_mean)
    parts["within_class"] = scatter - parts["own_class"]
    return parts


def test_parts_of_groups_are_those_of_loops_kept_or_streamed() -> None:
    net, tokens, labels = transformer()
    form = FORMS[0]
    expected = dense(form, net, tokens, labels)
    kept = Problem(net, (tokens, labels))
    parts = dense_groups(expected, kept, labels != -100)
    v = probe(kept)
    streamed = Problem(net, (tokens, labels), batch_size=2, logit_memory=2000)
    for problem in (kept, streamed):
        array = deepspec.gradients(problem, groups=GROUPS)
        assert "4 classes" in repr(array)
        for part in PARTS:
            assert close(array.parts[part] @ v, parts[part] @ v), part
        left = array.second_moment - array.parts["between_class"]
        assert close(left @ v, (expected["G"] - parts["between_class"]) @ v)
        assert close(array.second_moment @ v, expected["G"] @ v)
        both = array.parts["between_class"] + array.parts["within_class"]
        assert close(both @ v, (parts["between_class"] + parts["within_class"]) @ v)
    array = deepspec.gradients(kept, groups=GROUPS)
    values = torch.linalg.eigvalsh(parts["between_class"]).flip(0)
    found = array.eigenvalues("between_class")
    assert close(found, values[: len(found)])
    # Each class by itself is a grouping, too.
    alone = deepspec.gradients(kept, groups=torch.arange(V))
    for part in PARTS:
        plain = deepspec.gradients(kept).parts[part] @ v
        assert close(alone.parts[part] @ v, plain)
        assert close(deepspec.gradients(streamed).parts[part] @ v, plain)
        older = deepspec.gradients(kept, "icml2019").parts[part] @ v
        assert close(deepspec.gradients(streamed, "icml2019").parts[part] @ v, older)


def test_groups_can_be_attributed() -> None:
    net, tokens, labels = transformer_of_few_classes()
    problem = Problem(net, (tokens, labels))
    groups = deepspec.class_structure.frequent_classes(problem.labels, 4, 2)
    found = deepspec.attribute(problem, groups=groups, draws=2)
    assert found.num_classes == 3
    parts = {part.name: part.trace for part in found.train.decompositions[0].parts}
    total = float(GaussNewton(problem).to_dense().trace())
    assert abs(sum(v for k, v in parts.items() if k in PARTS) - total) < 1e-8
    assert found.train.layout is None


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        ([[0, 1]], ValueError, "48 are in none.*put the rest into one more group"),
        ([list(range(V)), [3]], ValueError, "class 3 in two"),
        ([[V]], ValueError, r"0\.\.49, got 50"),
        (torch.zeros(3).long(), ValueError, r"each of the 50 classes, got \(3,\)"),
        (torch.arange(V) - 1, ValueError, "numbered from 0, got -1 for class 0"),
        (3, TypeError, "groups as a tensor"),
    ],
)
def test_bad_groups_are_refused(groups: Any, error: type[Exception], words: str) -> None:
    net, tokens, labels = transformer()
    problem = Problem(net, (tokens, labels), verify=False)
    with pytest.raises(error, match=words):
        deepspec.gradients(problem, groups=groups)


def test_what_needs_rows_and_classes_says_so_where_they_are_streamed() -> None:
    net, tokens, labels = transformer()
    problem = Problem(net, (tokens, labels), logit_memory=2000, verify=False)
    with pytest.raises(MemoryError, match="make the problem with logit_memory=3600"):
        deepspec.attribute(problem)
    part = deepspec.gradients(problem, groups=GROUPS).projector("between_class")
    for use in (lambda: part.basis, lambda: part @ torch.ones(part.size, 1).double()):
        with pytest.raises(MemoryError, match="use operators on parameters"):
            use()
    with pytest.raises(ValueError, match="two-way layout, got groups"):
        deepspec.gradients(problem, groups=GROUPS).two_way_layout()
    with pytest.raises(ValueError, match="1 to 50 frequent classes, got 0"):
        deepspec.class_structure.frequent_classes(problem.labels, V, 0)
    array = deepspec.ClassArray(torch.eye(2), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="got it with an array"):
        deepspec.attribute(array, groups=GROUPS)


# ---- what must not matter -----------------------------------------------------------------------


def test_longer_padding_and_the_order_of_sequences_change_nothing() -> None:
    net, tokens, labels = transformer()
    v = torch.randn(Problem(net, (tokens, labels)).size, 1, dtype=torch.float64)
    longer = F.pad(tokens, (0, 4)), F.pad(labels, (0, 4), value=-100)
    order = torch.tensor([2, 0, 1])
    cut = [(tokens[:1, :3], labels[:1, :3]), (tokens[1:2, :1], labels[1:2, :1])]
    cut += [(tokens[2:], labels[2:])]
    expected = Problem(net, (tokens, labels))
    for data in (longer, (tokens[order], labels[order]), cut):
        for mean_over in ("rows", "sequences"):
            first = expected
            if mean_over == "sequences":
                first = Problem(net, (tokens, labels), mean_over="sequences")
            other = Problem(net, data, mean_over=mean_over)
            assert abs(other.loss - first.loss) < 1e-12
            assert abs(other.loss_error - first.loss_error) < 1e-12
            for operator in (GaussNewton, Hessian):
                assert close(operator(other) @ v, operator(first) @ v)
            found = deepspec.gradients(other).parts["between_class"] @ v
            assert close(found, deepspec.gradients(first).parts["between_class"] @ v)


def test_what_is_held_and_what_is_streamed_agree() -> None:
    net, tokens, labels = transformer()
    kept = Problem(net, (tokens, labels), memory_budget=0)
    streamed = Problem(net, (tokens, labels), batch_size=2, memory_budget=0, logit_memory=2000)
    held = Problem(net, (tokens, labels))
    held.engine.reserve_jacobian(10**6)
    assert not streamed.keeps_logits
    assert streamed.fingerprint()["content"] != ""
    v = torch.randn(kept.size, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for other in (streamed, held):
        assert abs(other.loss - kept.loss) < 1e-12
        assert other.error_rate == kept.error_rate
        assert close(other.gradient(), kept.gradient())
        for operator in (GaussNewton, Hessian, Residual):
            assert close(operator(other) @ v, operator(kept) @ v)


def test_rows_of_one_sample_are_not_taken_by_layer_formulas() -> None:
    """Errors of layers belong to rows, and inputs to samples: rows of J are right, products too."""
    net, images, labels = segmenter()
    problem = Problem(net, (images, labels), class_dim=1)
    kernel = deepspec.tangent_kernel(problem)
    assert kernel.by_formula == ()
    form = Form("", segmenter, F.cross_entropy)
    J = dense(form, net, images, labels)["J"].movedim(1, -2)
    rows = J.flatten(0, -3)[(labels != -100).flatten()].flatten(0, 1)
    assert close(kernel.matrix, rows @ rows.T)
    problem.plan = {**problem.plan, "jacobian: kept": "layers"}
    problem.engine.reserve_jacobian(10**6)
    v = torch.ones(problem.size, 1, dtype=torch.float64)
    assert close(problem.engine.jvp(v).flatten(), (rows @ v).flatten())


# ---- losses -------------------------------------------------------------------------------------


def test_a_sigmoid_is_two_columns() -> None:
    net, inputs = mlp(1)
    labels = torch.tensor([0.0, 1, 1, 0, 1, 0]).double()

    class TwoColumns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            z = self.net(x)
            return torch.cat([torch.zeros_like(z), z], dim=1)

    one = Problem(net, (inputs, labels), loss=nn.BCEWithLogitsLoss())
    two = Problem(TwoColumns(), (inputs, labels.long()))
    v = torch.ones(one.size, 1, dtype=torch.float64)
    assert one.num_classes == 2
    assert torch.equal(one.labels, two.labels)
    for part in PARTS:
        found, expected = (deepspec.gradients(p).parts[part] @ v for p in (one, two))
        assert close(found, expected)
    assert close(Hessian(one) @ v, Hessian(two) @ v)
    found = deepspec.attribute(one, draws=2).train
    assert abs(found.trace - deepspec.attribute(two, draws=2).train.trace) < TOLERANCE


class Poisson(deepspec.losses.Loss):
    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.exp() - targets * outputs).sum(dim=1)


class Concave(deepspec.losses.Loss):
    def value(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return -(outputs - targets).square().sum(dim=1)


def test_a_loss_of_ones_own_needs_its_value_only() -> None:
    net, inputs = mlp(2)
    counts = torch.arange(12).view(6, 2)
    problem = Problem(net, (inputs, counts), loss=Poisson())
    form = Form("", lambda: None, lambda z, y: Poisson().value(z, y.double()).mean())  # type: ignore[arg-type]
    expected = dense(form, net, inputs, counts)
    v = torch.ones(problem.size, 1, dtype=torch.float64)
    assert close(problem.gradient(), expected["gradient"])
    for name, operator in (("G", GaussNewton), ("Hess", Hessian), ("E", Residual)):
        assert close(operator(problem) @ v, expected[name] @ v), name
    values = torch.linalg.eigvalsh(expected["G"]).flip(0)
    found = deepspec.exact_spectrum(GaussNewton(problem)).eigenvalues
    assert close(found, values[: len(found)])
    concave = Problem(net, (inputs, counts), loss=Concave())
    with pytest.raises(ValueError, match=r"expected a convex loss.*Concave"):
        deepspec.exact_spectrum(GaussNewton(concave))


@pytest.mark.parametrize("use", [deepspec.gradients, deepspec.attribute, deepspec.ClassStructure])
def test_class_structure_says_what_it_needs(use: Callable) -> None:
    net, inputs = mlp(2)
    problem = Problem(net, (inputs, inputs[:, :2]), loss=nn.MSELoss())
    with pytest.raises(ValueError, match="class structure needs cross-entropy"):
        use(problem)


def test_soft_labels_are_said() -> None:
    net, tokens, labels = soft_tokens()
    problem = Problem(net, (tokens, labels))
    assert problem.has_soft_labels
    assert torch.equal(problem.labels, labels.flatten(0, 1).argmax(dim=1))


# ---- bad input ----------------------------------------------------------------------------------


def tokens_with(**options: Any) -> Callable[[], Problem]:
    def build() -> Problem:
        net, tokens, labels = transformer()
        labels = options.pop("labels", labels)
        return Problem(net, (tokens, labels), **options)

    return build


def pixels_with(**options: Any) -> Callable[[], Problem]:
    def build() -> Problem:
        net, images, labels = segmenter()
        return Problem(net, (images, labels), **options)

    return build


ONES = torch.ones(3, LENGTH)
BAD = [
    (tokens_with(labels=torch.full((3, LENGTH), -100)), ValueError, "a row that counts.*ignore"),
    (tokens_with(labels=torch.full((3, LENGTH), V)), ValueError, r"0\.\.49, got 50 at sample 0"),
    (tokens_with(labels=torch.full((3, LENGTH), -1)), ValueError, "position 0.*ignore_index=-1"),
    (tokens_with(labels=torch.zeros(3).long()), ValueError, r"shape \(3, 5\), got \(3,\)"),
    (tokens_with(row_weights=-ONES), ValueError, "at least 0.*leave rows out with weight 0"),
    (tokens_with(row_weights=ONES * torch.nan), ValueError, "finite and at least 0"),
    (tokens_with(row_weights=0 * ONES), ValueError, "a row that counts.*row_weights"),
    (tokens_with(row_weights=ONES[:2]), ValueError, r"row_weights of shape \(3, 5\)"),
    (tokens_with(row_weights=3), TypeError, "row_weights as a tensor"),
    (tokens_with(mean_over="batch"), ValueError, "mean_over"),
    (tokens_with(class_dim=3), ValueError, r"a dimension class_dim=3, got \(3, 5, 50\)"),
    (tokens_with(class_dim=0), TypeError, "class_dim as the dimension"),
    (tokens_with(class_dim=1, num_classes=V), ValueError, "5 classes in class_dim=1"),
    (pixels_with(), ValueError, "say so with class_dim="),
    (tokens_with(loss=nn.NLLLoss()), TypeError, "expected a loss, got NLLLoss"),
    (tokens_with(loss=nn.CrossEntropyLoss(reduction="sum")), ValueError, 'reduction="mean"'),
    (tokens_with(loss=nn.CrossEntropyLoss(torch.ones(3))), ValueError, "50 classes, got 3"),
    (tokens_with(loss=nn.MSELoss()), ValueError, "targets of SquaredError of the outputs' shape"),
    (tokens_with(logit_memory=-1), ValueError, "logit_memory"),
    (tokens_with(parameters="head.*"), ValueError, r"fit 'head\.\*', got none; there are place"),
    (tokens_with(parameters=3), TypeError, "globs or regular"),
    (tokens_with(parameters="re:("), ValueError, "regular expression after re:"),
    (tokens_with(parameters=[]), ValueError, "at least one pattern"),
    (tokens_with(parameters="*", select=lambda *_: True), ValueError, "select or parameters"),
]


@pytest.mark.parametrize(("build", "error", "words"), BAD)
def test_bad_input_is_refused_with_the_remedy(
    build: Callable[[], Problem], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        build()
    assert "\n" not in str(caught.value)
