"""What several processes and one must agree on, to the bit; and the processes that try it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import deepspec
from deepspec import ClassStructure, GaussNewton, Hessian, Problem, Residual
from deepspec.class_structure import cell_means, class_means
from deepspec.engine import launching, watching
from deepspec.engine.errors import RankFailed
from deepspec.neural_tangent_kernel import accumulation, tangent_kernel
from deepspec.storage.results import save_result
from tests.cases import hold

# Sorted, so that a rank lacks whole classes; class 2 has no sample at all.
LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 3, 3, 3])
DTYPES = {"float32": torch.float32, "float64": torch.float64}
STOP = 12


def net() -> nn.Module:
    """Layers with a formula, and one parameter without."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        convolution = nn.Conv2d(1, 3, 3, padding=1)
        norm = nn.LayerNorm(48)
        hidden = nn.Linear(48, 5)
        return nn.Sequential(
            convolution, nn.Tanh(), nn.Flatten(), norm, hidden, nn.PReLU(5), nn.Linear(5, 4)
        ).eval()


def data(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(len(LABELS), 1, 4, 4, generator=generator, dtype=torch.float64)
    return x.to(dtype), LABELS


def problem(name: str, batch_size: int, **options: Any) -> Problem:
    dtype = DTYPES[name]
    return Problem(net().to(dtype), data(dtype), batch_size=batch_size, **options)


def measured(chosen: Problem) -> dict[str, Tensor]:
    """Everything that this library says of a problem, or nearly."""
    generator = torch.Generator().manual_seed(3)
    v = torch.randn(chosen.size, 3, generator=generator, dtype=torch.float64).to(chosen.dtype)
    G, H = GaussNewton(chosen), Hessian(chosen)
    for operator in (G, H, Residual(chosen)):
        operator.prepare(10**6)
    structure = ClassStructure(chosen)
    found = {
        "logits": chosen.logits,
        "labels": chosen.labels,
        "gradient": chosen.gradient(),
        "G v": G @ v[:, 0],
        "G V": G @ v,
        "Hess V": H @ v,
        "E v": Residual(chosen) @ v[:, 0],
        "J V": chosen.engine.jvp(v),
        "kernel": tangent_kernel(chosen).matrix,
        "gram of means": cell_means(structure).gram,
        "means": class_means(structure).vectors(),
        "G off its means": cell_means(structure).projector() @ v,
    }
    for name, part in structure.named().items():
        found[name] = part @ v
    density = deepspec.spectral_density(G, steps=STOP, probes=2, seed=1)
    found["density"] = torch.stack([density.ritz_values, density.ritz_weights])
    pairs = deepspec.top_eigenpairs(G, 3, tol=1e-4)
    found["pairs"] = torch.cat([pairs.values[None], pairs.vectors])
    array = deepspec.gradients(chosen)
    found["eigenvalues"] = array.eigenvalues()
    found["knocked out"] = array.knock_out("between_class", how="projection")
    return {key: tensor.detach().contiguous().clone() for key, tensor in found.items()}


def small() -> nn.Module:
    """A net of few parameters: an attribution takes a thousand products."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 2), nn.Tanh(), nn.Linear(2, 4))


def attributed(dtype: torch.dtype, batch_size: int, group: Any) -> dict[str, Tensor]:
    """The numbers of an attribution."""
    options = {"batch_size": batch_size, "group": group, "memory_budget": 0}
    chosen = Problem(small().to(dtype), data(dtype), **options)
    # What would otherwise be a matter of time.
    chosen.plan = {
        **chosen.plan,
        "hessian: nesting": "reverse over reverse",
        "columns at once: TransientJacobian": 1,
    }
    # Small enough to be exact, which one precision is not asked to be.
    size = 0 if dtype == torch.float32 and batch_size == 2 else None
    found = deepspec.attribute(chosen, draws=2, steps=5, exact_up_to=size).train
    numbers = {"top": found.top, "projected": found.hessian_projected}
    for one in found.knockouts:
        numbers[f"{one.part} subtracted"] = one.subtracted
        numbers[f"{one.part} projected"] = one.projected
    for finding in found.findings:
        numbers[finding.claim] = torch.tensor([finding.removed], dtype=torch.float64)
    numbers["trace"] = torch.tensor([found.trace, found.trace_error], dtype=torch.float64)
    return {key: tensor.detach().contiguous().clone() for key, tensor in numbers.items()}


def cases(size: int) -> list[tuple[str, str, int, int]]:
    """A name, a precision, a batch size and a budget for each comparison."""
    if size == 2:  # ragged shares of three batches, held, and of six
        return [("held", "float64", 4, 10**9), ("ragged", "float32", 2, 0)]
    # more ranks than batches; and a rank with a short batch
    return [("idle", "float64", 6, 0), ("idle 32", "float32", 6, 0), ("three", "float64", 4, 0)]


def all_numbers(case: tuple[str, str, int, int], plan: Any = None, group: Any = None) -> Any:
    """A case's numbers, and the plan that they were computed with."""
    name, precision, batch_size, budget = case
    chosen = problem(precision, batch_size, memory_budget=budget, group=group)
    if plan is not None:
        chosen.plan = plan
    elif budget:
        hold(chosen, "linearised")
    found = measured(chosen)
    if name != "three":
        found |= attributed(chosen.dtype, batch_size, group)
    return found, dict(chosen.plan)


# ---- in each process ----------------------------------------------------------------------------


def prepared() -> None:
    torch.set_num_threads(1)
    accumulation.ROWS_AT_LEAST = 8
    watching.BEAT, watching.SILENCE, watching.GRACE = 0.2, 20.0, 10.0
    launching.LAST_WORD = 0.5


def work(rank: int, size: int, folder: str) -> None:
    """Everything one spawned process has to try; results go to files."""
    prepared()
    place = Path(folder)
    if size == 2:
        command_line(rank, size, place)
    store = f"file://{place / 'store'}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    group = dist.group.WORLD
    for case in cases(size):
        plan = json.loads((place / f"{case[0]}.json").read_text())
        found, followed = all_numbers(case, plan, group)
        assert (followed["ranks"], followed["backend"]) == (size, "gloo")
        assert {**followed, **plan} == followed
        if rank in (0, size - 1):
            safetensors.torch.save_file(found, place / f"{case[0]} of {rank}.safetensors")
    if size == 2:
        forms_of_data(rank, group)
        counted_bytes(group)
        sums_in_float64(group)
        refusals(rank, group)
        decided_together(group)
        raises(rank, group)
    else:
        dies(rank, size, place, group)
    (place / f"done {rank}").touch()


def command_line(rank: int, size: int, place: Path) -> None:
    """As torchrun starts it: one folder, one voice."""
    from deepspec.cli import app, commands

    # No figures, which are no matter of processes.
    commands.fill = lambda folder, found, extra: save_result(folder, found)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    ports = (place / "ports").read_text().split()
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ports[0]}
    source = "tests.deepspec.distributed_cases"
    arguments = ["attribute", "--model", f"{source}:small", "--data", f"{source}:singles"]
    arguments += ["--draws", "2", "--batch-size", "4", "--out", str(place / "out")]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        with pytest.raises(SystemExit) as first:
            app(arguments)
        # Now the folder is there: the first rank says so, and the other one hears of it.
        os.environ["MASTER_PORT"] = ports[1]
        with pytest.raises(SystemExit) as second:
            app(arguments)
    assert (first.value.code, second.value.code) == (0, 2), said.getvalue()
    (place / f"said {rank}").write_text(said.getvalue())
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    if dist.is_initialized():
        dist.destroy_process_group()


def singles() -> tuple[Tensor, Tensor]:
    return data(torch.float32)


def product(chosen: Problem) -> Tensor:
    return GaussNewton(chosen) @ torch.linspace(-1, 1, chosen.size, dtype=chosen.dtype)


def forms_of_data(rank: int, group: Any) -> None:
    """A Dataset, a DataLoader and a list of batches give the same."""
    x, y = data(torch.float64)
    model, pairs = net().double(), TensorDataset(x, y)
    expected = product(Problem(model, (x, y), batch_size=2))
    loader = DataLoader(pairs, batch_size=2)
    batches = [(x[i : i + 2], y[i : i + 2]) for i in range(0, len(y), 2)]
    for form, options in ((pairs, {"batch_size": 2}), (loader, {}), (batches, {})):
        assert torch.equal(product(Problem(model, form, group=group, **options)), expected)
    # Another rank's parameters are not used.
    other = model if rank == 0 else nn.Sequential(*net().double()).apply(shifted)
    shared = Problem(other, batches, group=group)
    assert torch.equal(product(shared), expected)
    assert shared.fingerprint() == Problem(model, batches).fingerprint()


def shifted(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            parameter.add_(1.0)


def counted_bytes(group: Any) -> None:
    """What the plan says of bytes is what was sent."""
    chosen = problem("float32", 2, group=group)
    before = chosen.group.sent
    product(chosen)
    sent = sum(chosen.group.values(chosen.group.sent - before))
    assert sent == chosen.plan["bytes sent for a column: Jᵀ r"] == 2 * chosen.size * 4
    before = chosen.group.sent
    chosen.engine.jvp(torch.ones(chosen.size, 1))
    sent = sum(chosen.group.values(chosen.group.sent - before))
    assert sent == chosen.plan["bytes sent for a column: J v"] == len(LABELS) * 4 * 8


def sums_in_float64(group: Any) -> None:
    """Where vectors may not wait for their turn, one reduction is as good to rounding."""
    chosen, exact = problem("float32", 2, group=group), problem("float64", 2, group=group)
    chosen.plan = {**chosen.plan, "columns summed in order": 0}
    assert chosen.plan["columns summed in order"] == 0
    found, expected = product(chosen).double(), product(exact)
    before = chosen.group.sent
    again = product(chosen)
    sent = sum(chosen.group.values(chosen.group.sent - before))
    assert sent == chosen.plan["bytes sent for a column: Jᵀ r, in float64"]
    assert torch.equal(again.double(), found)
    assert float((found - expected).norm() / expected.norm()) < 1e-6


def refusals(rank: int, group: Any) -> None:
    """What cannot be right is refused, in the same words on every rank."""
    x, y = data(torch.float32)
    model = net()
    with pytest.raises(ValueError, match="one sample for each of 2 ranks, got 1; start fewer"):
        Problem(model, (x[:1], y[:1]), group=group)
    with pytest.raises(ValueError, match=r"same data .* got \[11, 10\] samples by rank"):
        Problem(model, (x[rank:], y[rank:]), group=group)
    with pytest.raises(ValueError, match="same model on every rank"):
        Problem(
            model if rank else nn.Sequential(nn.Flatten(), nn.Linear(16, 4)), (x, y), group=group
        )
    broken = x.clone()
    broken[9] = torch.nan
    with pytest.raises(ValueError, match="NaN or infinity at sample 9; its input has them"):
        Problem(model, (broken, y), batch_size=2, group=group)
    sampler = DistributedSampler(TensorDataset(x, y), num_replicas=2, rank=rank)
    loader = DataLoader(TensorDataset(x, y), sampler=sampler)
    with pytest.raises(ValueError, match=r"DistributedSampler, which pads .* give the Dataset"):
        Problem(model, loader, group=group)
    with (
        pytest.warns(RuntimeWarning, match="1 batches are shared by 2")
        if rank == 0
        else (contextlib.nullcontext())
    ):
        Problem(model, (x, y), group=group)


def decided_together(group: Any) -> None:
    """Without a plan the first rank measures, and all go its way."""
    chosen = problem("float32", 2, group=group)
    for operator in (GaussNewton(chosen), Hessian(chosen)):
        operator.prepare(10**6)
        operator @ torch.ones(chosen.size, 5)
    plans = chosen.group.values(chosen.plan)
    assert plans[0] == plans[1]
    assert plans[0]["jacobian: kept"] in ("layers", "linearised", "nothing")
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        chosen.group.from_first(lambda: 1 / 0)


def raises(rank: int, group: Any) -> None:
    """An error on one rank reaches the other one, which does not wait for ever."""
    chosen = problem("float32", 2, group=group)
    vector = torch.ones(chosen.size)
    if rank == 1:
        with pytest.raises(KeyError), chosen.group.telling():
            raise KeyError("lost")
        return
    with pytest.raises(RankFailed, match=r"rank 1 on .* raised KeyError: 'lost'"):
        GaussNewton(chosen) @ vector


def dies(rank: int, size: int, place: Path, group: Any) -> None:
    """The last rank is killed in the middle; the others end by themselves, and say why."""
    chosen = problem("float64", 2, memory_budget=0, group=group)
    engine, count = chosen.engine, 0
    multiply = engine.per_sample_pullback_product

    def counted(*arguments: Any) -> Tensor:
        nonlocal count
        count += 1
        if rank == size - 1 and count > STOP:
            os.kill(os.getpid(), signal.SIGKILL)
        return multiply(*arguments)

    engine.per_sample_pullback_product = counted
    with pytest.raises(RankFailed, match=rf"rank {size - 1} .*gave no sign of life"):
        long_run(chosen, place / "checkpoint")


def long_run(chosen: Problem, folder: Path | None) -> Any:
    G = GaussNewton(chosen)
    return deepspec.spectral_density(
        G, steps=STOP, probes=2, seed=1, checkpoint=folder, checkpoint_every=0
    )
