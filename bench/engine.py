"""H v, G v and class-structure products, in multiples of one gradient, beside the peers'.

Run by ``make bench``; alone: ``python -m bench.engine --json FILE``.
"""

from __future__ import annotations

import argparse
import json
import resource
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from bench.timing import Timing, once, paired
from deepspec import ClassStructure, GaussNewton, Hessian, Problem, lanczos
from deepspec.zoo.networks import mlp, small_vgg

Work = Callable[[], object]


def nets() -> dict[str, tuple[nn.Module, Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def data(n: int, *shape: int) -> tuple[Tensor, Tensor]:
        features = torch.randn(n, *shape, generator=generator)
        return features.to(device), (torch.arange(n) % 10).to(device)

    return {
        "MLP 784-4×512-10": (mlp(784, (512,) * 4).to(device).eval(), *data(1024, 784)),
        "small VGG": (small_vgg().to(device).eval(), *data(256, 3, 32, 32)),
    }


def peers(model: nn.Module, X: Tensor, y: Tensor, v: Tensor) -> dict[str, Work]:
    """The peers' products on the same data in one batch, of those that are installed."""
    found: dict[str, Work] = {}
    data = [(X, y)]
    loss = nn.CrossEntropyLoss()
    split = by_parameter(model, v)
    try:
        import curvlinops
    except ImportError:
        pass
    else:
        for name, kind in [
            ("H v, curvlinops", curvlinops.HessianLinearOperator),
            ("G v, curvlinops", curvlinops.GGNLinearOperator),
        ]:
            operator = kind(model, loss, list(model.parameters()), data, check_deterministic=False)
            found[name] = lambda operator=operator: operator @ v
    try:
        import hessian_eigenthings as eigenthings
    except ImportError:
        pass
    else:
        H = eigenthings.HessianOperator(model, data, eigenthings.supervised_loss(loss))
        G = eigenthings.GGNOperator(
            model, data, eigenthings.supervised_forward, eigenthings.supervised_loss_of_output(loss)
        )
        found["H v, hessian-eigenthings"] = lambda: H @ v
        found["G v, hessian-eigenthings"] = lambda: G @ v
    try:
        from pyhessian import hessian
        from pyhessian.utils import hessian_vector_product
    except ImportError:
        pass
    else:
        cuda = X.is_cuda
        streaming = hessian(model, loss, dataloader=data, cuda=cuda)
        found["H v, PyHessian"] = lambda: streaming.dataloader_hv_product(split)
        held = hessian(model, loss, data=(X, y), cuda=cuda)
        found["H v, PyHessian (graph kept)"] = lambda: hessian_vector_product(
            held.gradsH, held.params, split
        )
    return found


def by_parameter(model: nn.Module, v: Tensor) -> list[Tensor]:
    """A flat vector in the shapes of the parameters."""
    parameters = list(model.parameters())
    parts = v.split([p.numel() for p in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


def papers_gauss_newton(model: nn.Module, X: Tensor, v: Tensor) -> Work:
    """G v as Papyan (2020)'s own code does it: J v by differentiating a vjp twice, then Jᵀ."""
    parameters = list(model.parameters())
    split = by_parameter(model, v)

    def work() -> object:
        logits = model(X)
        dummy = torch.zeros_like(logits, requires_grad=True)
        pulled = torch.autograd.grad(logits, parameters, dummy, create_graph=True)
        (u,) = torch.autograd.grad(pulled, dummy, split)
        p = torch.softmax(logits.detach(), 1)
        r = p * (u - (p * u).sum(1, keepdim=True)) / len(X)
        return torch.autograd.grad(logits, parameters, r)

    return work


def contenders(model: nn.Module, X: Tensor, y: Tensor) -> tuple[dict[str, Work], Problem]:
    parameters = list(model.parameters())
    free = Problem(model, (X, y), batch_size=len(X), memory_budget=0)
    roomy = Problem(model, (X, y), batch_size=len(X), memory_budget=0.5)
    roomy_h = Problem(model, (X, y), batch_size=len(X), memory_budget=0.5)
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(free.size, generator=generator).to(X.device)
    GaussNewton(roomy).prepare(10**6)
    Hessian(roomy_h).prepare(10**6)
    work: dict[str, Work] = {
        "gradient": lambda: torch.autograd.grad(
            nn.functional.cross_entropy(model(X), y), parameters
        ),
        "G v, budget enough": lambda: GaussNewton(roomy) @ v,
        "G v, budget 0": lambda: GaussNewton(free) @ v,
        "H v, budget enough": lambda: Hessian(roomy_h) @ v,
        "H v, budget 0": lambda: Hessian(free) @ v,
        "G v, the papers' way": papers_gauss_newton(model, X, v),
    }
    for budget, problem in [("enough", roomy), ("0", free)]:
        parts = ClassStructure(problem)
        operators = [
            ("G_class v", parts.between_class),
            ("(G − G_class) v", GaussNewton(problem) - parts.between_class),
            ("G_within v", parts.within_class),
        ]
        for name, operator in operators:
            work[f"{name}, budget {budget}"] = lambda operator=operator: operator @ v
    return {**work, **peers(model, X, y, v)}, free


def deep_net(layers: int = 100, width: int = 200) -> tuple[nn.Module, Tensor, Tensor]:
    """Some 400 parameter tensors and 4 million parameters: what counts is the cost of each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = mlp(10, (width,) * (layers + 1), 3).to(device)
        return model.eval(), torch.randn(8, 10).to(device), (torch.arange(8) % 3).to(device)


def many_tensors(rounds: int, columns: int = 4) -> tuple[dict[str, float], list]:
    """k columns in multiples of k single products, and the memory they take, on a deep net.

    The single products are put side by side, as the columns' are: that they stand in one block
    of 64 MB takes the system a tenth of the time (fresh pages), whoever asks for it.
    """
    model, X, y = deep_net()
    problem = Problem(model, (X, y), memory_budget=0)
    block = torch.randn(problem.size, columns, device=X.device)
    by_rows = block.T.contiguous()
    rows, found = [], {}
    for name, operator in (("G", GaussNewton(problem)), ("H", Hessian(problem))):
        single = by_rows[0].clone()
        work: dict[str, Work] = {
            "single": lambda operator=operator, v=single: torch.stack(
                [operator @ v for _ in range(columns)]
            ),
            "apart": lambda operator=operator, v=single: [operator @ v for _ in range(columns)],
            "rows of a block": lambda operator=operator: [operator @ row for row in by_rows],
            "columns": lambda operator=operator: operator @ block,
            "columns by rows": lambda operator=operator: operator @ by_rows.T,
        }
        for way, timing in paired(work, "single", rounds).items():
            found[f"{name}: {way}"] = timing.ratio
            if way not in ("single", "apart"):
                goal = f"{name}, 100 layers: {columns} {way} ≤ 1.1 × {columns} single products"
                rows.append((goal, f"{timing.ratio:.2f}", timing.ratio <= 1.1))
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    found["peak MB"], found["MB of one vector"] = taken, problem.size * 4 / 2**20
    return found, rows


def step_overhead(problem: Problem, steps: int = 24) -> float:
    """What a FastLanczos step takes beyond its product, as a share of the product."""
    G = GaussNewton(problem)
    G.prepare(10**6)
    v = torch.ones(problem.size, dtype=problem.dtype, device=problem.device)
    _ = G @ v
    shares = []
    for _ in range(5):
        run = once(lambda: lanczos(G, steps, v))
        products = once(lambda: [G @ v for _ in range(steps)])
        shares.append(run / products - 1)
    return sorted(shares)[len(shares) // 2]


def targets(times: dict[str, Timing], net: str, overhead: float) -> list[tuple[str, str, bool]]:
    """Each target of the design, what was measured, and whether it is met."""

    def ratio(name: str) -> float:
        return times[name].ratio

    def fastest(prefix: str) -> float:
        return min(
            (t.ratio for n, t in times.items() if n.startswith(prefix) and "budget" not in n),
            default=float("nan"),
        )

    factor = 1.6 if net.startswith("MLP") else 2.3
    own_g, own_h = ratio("G v, budget enough"), ratio("H v, budget enough")
    rows = [("G v, budget enough ≤ 1.1 gradients", f"{own_g:.2f}", own_g <= 1.1)]
    if "G v, curvlinops" in times:
        gain = ratio("G v, curvlinops") / own_g
        rows.append(("G v, budget enough ≥ 2 × faster than curvlinops", f"{gain:.2f}", gain >= 2))
    worst = max(ratio(f"{n}, budget enough") for n in ("G_class v", "(G − G_class) v")) / own_g
    zero_g, zero_h = ratio("G v, budget 0"), ratio("H v, budget 0")
    worst_zero = max(ratio(f"{n}, budget 0") for n in ("G_class v", "(G − G_class) v")) / zero_g
    rows += [
        (
            "G v, budget 0, over the fastest peer ≤ 1",
            f"{zero_g / fastest('G v'):.2f}",
            zero_g <= fastest("G v"),
        ),
        (
            f"H v, budget enough ≥ {factor} × faster than the fastest peer",
            f"{fastest('H v') / own_h:.2f}",
            fastest("H v") / own_h >= factor,
        ),
        (
            "H v, budget 0, over the fastest peer that keeps nothing ≤ 1",
            f"{zero_h / _keeping_nothing(times):.2f}",
            zero_h <= _keeping_nothing(times),
        ),
        ("class structure ≤ 1.15 G v, budget enough", f"{worst:.2f}", worst <= 1.15),
        ("class structure ≤ 1.15 G v, budget 0", f"{worst_zero:.2f}", worst_zero <= 1.15),
    ]
    if net.startswith("MLP"):
        rows.append(
            ("a Lanczos step beyond its product ≤ 3 %", f"{overhead:.1%}", overhead <= 0.03)
        )
    return rows


def _keeping_nothing(times: dict[str, Timing]) -> float:
    peers_h = ["H v, curvlinops", "H v, hessian-eigenthings", "H v, PyHessian"]
    return min((times[name].ratio for name in peers_h if name in times), default=float("nan"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    console, result = Console(), dict[str, dict]()
    warnings.filterwarnings("ignore", module="torch")
    warnings.filterwarnings("ignore", message="Using backward.. with create_graph")
    # First, so that the peak is its own.
    found, rows = many_tensors(options.rounds)
    deep = Table("target", "measured", "met", title="100 layers")
    for name, measured, met in rows:
        deep.add_row(name, measured, "yes" if met else "missed")
    console.print(deep)
    console.print(f"peak {found['peak MB']:.0f} MB; a vector has {found['MB of one vector']:.0f}")
    result["100 layers"] = found
    for net, (model, X, y) in nets().items():
        work, problem = contenders(model, X, y)
        times = paired(work, "gradient", options.rounds)
        overhead = step_overhead(problem) if net.startswith("MLP") else float("nan")
        table = Table("product", "gradients, median", "gradients, min/min", "ms, min", title=net)
        for name, timing in sorted(times.items(), key=lambda item: item[1].ratio):
            milliseconds = 1e3 * min(timing.seconds)
            table.add_row(name, f"{timing.ratio:.2f}", f"{timing.best:.2f}", f"{milliseconds:.1f}")
        console.print(table)
        goals = Table("target", "measured", "met", title=f"{net}: targets")
        rows = targets(times, net, overhead)
        for name, measured, met in rows:
            goals.add_row(name, measured, "yes" if met else "missed")
        console.print(goals)
        result[net] = {
            "gradients": {n: {"median": t.ratio, "min": t.best} for n, t in times.items()},
            "targets": {name: {"measured": m, "met": met} for name, m, met in rows},
            "plan": problem.plan,
        }
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
