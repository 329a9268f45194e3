"""Θ by layers beside Θ through the Jacobian, and Grams of means beside the papers' routine.

Run by ``make bench``; alone: ``python -m bench.exact --json FILE``. Contenders of a comparison
run in turn, and each one's fastest time counts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bench.engine import nets
from bench.timing import once
from deepspec import ClassStructure, GaussNewton, Problem
from deepspec.class_structure import cell_means, exact_spectrum
from deepspec.neural_tangent_kernel import tangent_kernel
from deepspec.neural_tangent_kernel.accumulation import mirror
from deepspec.neural_tangent_kernel.jacobian import add_jacobian
from deepspec.neural_tangent_kernel.kernel import BLOCK_BYTES
from deepspec.zoo.networks import mlp

ROUNDS = 3
THETA_TARGET, GRAM_TARGET = 20.0, 6.0


def papers_means(model: nn.Module, X: Tensor, y: Tensor, classes: int) -> list[list[Tensor]]:
    """All δ_{c,c'} as Papyan (2019)'s published code finds them.

    One forward pass, then for every c and c' a backward pass through the graph of the whole
    batch, with cotangents that are zero but for class c.
    """
    parameters = list(model.parameters())
    logits = model(X)
    probabilities = torch.softmax(logits, dim=1).detach()
    means = []
    for c in range(classes):
        members = (y == c).nonzero()[:, 0]
        p, of_class = probabilities[members], logits[members]
        for other in range(classes):
            cotangent = -p.clone()
            cotangent[:, other] += 1
            cotangent *= p[:, [other]].sqrt()
            parts = torch.autograd.grad(of_class, parameters, cotangent, retain_graph=True)
            means.append([part / len(members) for part in parts])
    return means


def papers_gram(model: nn.Module, X: Tensor, y: Tensor, classes: int) -> Tensor:
    """The Gram of those C² lists of tensors, inner product by inner product, as in their code."""
    means = papers_means(model, X, y, classes)
    gram = torch.zeros(len(means), len(means))
    for row, left in enumerate(means):
        for column, right in enumerate(means):
            products = (a.flatten() @ b.flatten() for a, b in zip(left, right, strict=True))
            gram[row, column] = sum(products) / classes
    return gram


def papers_gram_by_matmul(model: nn.Module, X: Tensor, y: Tensor, classes: int) -> Tensor:
    """The same with the C² × p array and one matrix product: kinder to them than their code."""
    means = papers_means(model, X, y, classes)
    flat = torch.stack([torch.cat([part.flatten() for part in mean]) for mean in means])
    return flat @ flat.T / classes


def fastest(work: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of each, the best of a few rounds of them all in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, contender in work.items():
            seconds[name].append(once(contender))
    return {name: min(times) for name, times in seconds.items()}


def grams(model: nn.Module, X: Tensor, y: Tensor) -> dict[str, float]:
    """Seconds for the Gram of the C² means, and for one gradient, in one batch."""
    problem = Problem(model, (X, y), batch_size=len(X))
    classes = problem.num_classes
    parameters = list(model.parameters())
    by_convention = {name: ClassStructure(problem, name) for name in ("icml2019", "jmlr2020")}
    # Theirs weighs classes equally, whatever their size.
    ours = cell_means(by_convention["icml2019"]).plain_gram / classes
    theirs = papers_gram(model, X, y, classes)
    error = float((ours.cpu() - theirs).abs().max() / theirs.abs().max())
    if error > 1e-3:
        raise SystemExit(f"the two Grams differ by {error:.1e} of the largest entry")

    def gradient() -> object:
        return torch.autograd.grad(nn.functional.cross_entropy(model(X), y), parameters)

    work: dict[str, Callable[[], object]] = {"gradient": gradient}
    for name, structure in by_convention.items():
        work[f"cell means, {name}"] = partial(cell_means, structure)
    work["gradient, again"] = gradient
    work["papers' routine"] = partial(papers_gram, model, X, y, classes)
    work["papers' routine, one matrix product"] = partial(
        papers_gram_by_matmul, model, X, y, classes
    )
    return fastest(work, ROUNDS)


def thetas() -> dict[str, float]:
    """Seconds for Θ of an 8-layer MLP of width 512 at n = 400, and what follows from it.

    Through the Jacobian only the share of one hidden layer's weights is timed, an eighth of the
    parameters: the whole takes minutes.
    """
    generator = torch.Generator().manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = mlp(784, (512,) * 8).to(device).eval()
    X, y = torch.randn(400, 784, generator=generator).to(device), torch.arange(400) % 10
    data = (X, y.to(device))
    problem = Problem(model, data)
    hidden = [
        name
        for name, shape in zip(problem.space.names, problem.space.shapes, strict=True)
        if tuple(shape) == (512, 512)
    ]
    one = Problem(model, data, select=lambda name, _: name == hidden[0])
    theta = torch.zeros(4000, 4000, device=device)

    def by_layers() -> object:
        return tangent_kernel(Problem(model, data, verify=False))

    layers = fastest({"all parameters, by layers": by_layers}, ROUNDS)
    share = once(lambda: add_jacobian(theta, one, one.space.names, BLOCK_BYTES))
    mirror(theta)
    error = float((tangent_kernel(one).matrix - theta).abs().max() / theta.abs().max())
    if error > 1e-4:
        raise SystemExit(f"the two tangent kernels differ by {error:.1e} of the largest entry")
    kernel = tangent_kernel(problem)
    G, parts = GaussNewton(problem), ClassStructure(problem)
    knockout = G - parts.between_class
    after = {
        "all eigenvalues of G, Θ given": lambda: exact_spectrum(G, kernel),
        "all eigenvalues of G_class, Θ given": lambda: exact_spectrum(parts.between_class, kernel),
        "all eigenvalues of G − G_class, Θ given": lambda: exact_spectrum(knockout, kernel),
    }
    return {"one weight matrix, by Jacobian": share, **layers, **fastest(after, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    arguments = parser.parse_args()
    console = Console()
    results: dict[str, dict[str, float]] = {}
    for name, (model, X, y) in nets().items():
        seconds = grams(model, X, y)
        unit = min(seconds.pop("gradient"), seconds.pop("gradient, again"))
        results[name] = {"gradient, seconds": unit, **{k: s / unit for k, s in seconds.items()}}
        slow = seconds["papers' routine"]
        table = Table("Gram of the C² means", "gradients", "papers' / this", title=name)
        for row, value in seconds.items():
            table.add_row(row, f"{value / unit:.1f}", f"{slow / value:.1f}")
        table.caption = f"target: at least {GRAM_TARGET:g}"
        console.print(table)
    theta = thetas()
    results["tangent kernel, seconds"] = theta
    slow = theta["one weight matrix, by Jacobian"]
    table = Table("Θ, MLP 784-8×512-10, n = 400", "seconds", "one matrix by Jacobian / this")
    for row, value in theta.items():
        table.add_row(row, f"{value:.2f}", f"{slow / value:.1f}")
    table.caption = (
        f"target, by layers against all parameters by Jacobian (more than one matrix): "
        f"at least {THETA_TARGET:g}"
    )
    console.print(table)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
