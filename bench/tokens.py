"""G v and H v of a GPT-2-shaped model, beside peers: ``python -m bench.tokens [--json FILE]``.

Random weights, V = 50,257, T = 64, B = 4, 2 layers, width 128, float32, tied embeddings. Each
contender runs in a process of its own, so that the peak of the memory is its own; the error is
against the same product in float64.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

VOCABULARY, LENGTH, BATCH, WIDTH, HEADS, LAYERS = 50_257, 64, 4, 128, 4, 2
MOST_BYTES = 4 * 2**30
# Peers need the plain attention kernel chosen for them; it stays on as long as this is held.
KERNELS = ExitStack()
NAMES = ("deepspec", "curvlinops", "hessian-eigenthings")


class Block(nn.Module):
    """Attention and two linear maps, normalised before, as in GPT-2."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.qkv(self.ln_1(x)).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.proj(seen.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class Shaped(nn.Module):
    """A small GPT-2 whose head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


def net() -> tuple[nn.Module, Tensor]:
    """The model, with weights of GPT-2's size, and ids of one more token than it sees."""
    torch.manual_seed(0)
    model = Shaped().eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return model, torch.randint(0, VOCABULARY, (BATCH, LENGTH + 1))


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over tokens."""
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten())


def vector(model: nn.Module) -> Tensor:
    """The direction, one entry for each parameter."""
    size = sum(p.numel() for p in model.parameters())
    return torch.randn(size, generator=torch.Generator().manual_seed(1))


def exact() -> dict[str, Tensor]:
    """Both products in float64, as PyTorch differentiates."""
    model, ids = net()
    model = model.double()
    v = vector(model).double()
    names = [name for name, _ in model.named_parameters()]
    parameters = [p.detach() for p in model.parameters()]
    parts = [
        part.view_as(p)
        for part, p in zip(v.split([p.numel() for p in parameters]), parameters, strict=True)
    ]

    def output(*values: Tensor) -> Tensor:
        named = dict(zip(names, values, strict=True))
        return torch.func.functional_call(model, named, (ids[:, :-1],))

    with sdpa_kernel(SDPBackend.MATH):
        z, pushed = torch.func.jvp(output, tuple(parameters), tuple(parts))
        leaf = z.detach().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf, ids[:, 1:]), leaf, create_graph=True)
        (curved,) = torch.autograd.grad(slope, leaf, pushed)
        _, pull = torch.func.vjp(output, *parameters)
        G = torch.cat([part.reshape(-1) for part in pull(curved.detach())])
        leaves = [p.clone().requires_grad_() for p in parameters]
        gradients = torch.autograd.grad(
            loss(output(*leaves), ids[:, 1:]), leaves, create_graph=True
        )
        H = torch.cat([part.reshape(-1) for part in torch.autograd.grad(gradients, leaves, parts)])
    return {"G": G, "H": H.detach()}


def contender(name: str, which: str) -> Callable[[], Tensor]:
    """One product of one library, made ready."""
    model, ids = net()
    v = vector(model)
    data = [(ids[:, :-1], ids[:, 1:])]
    if name == "deepspec":
        import deepspec

        problem = deepspec.language_model(model, ids, batch_size=BATCH, memory_budget=0)
        kinds = {"G": deepspec.GaussNewton, "H": deepspec.Hessian}
        operator = kinds[which](problem)
        return lambda: (operator @ v[:, None])[:, 0]
    KERNELS.enter_context(sdpa_kernel(SDPBackend.MATH))
    if name == "curvlinops":
        import curvlinops

        class Flat(nn.Module):
            """Logits (b, V, t), as the criterion wants them."""

            def __init__(self) -> None:
                super().__init__()
                self.net = model

            def forward(self, x: Tensor) -> Tensor:
                return self.net(x).transpose(1, 2)

        flat = Flat()
        kind = {"G": curvlinops.GGNLinearOperator, "H": curvlinops.HessianLinearOperator}[which]
        found = kind(
            flat, nn.CrossEntropyLoss(), list(flat.parameters()), data, check_deterministic=False
        )
        return lambda: found @ v
    import hessian_eigenthings as eigenthings

    if which == "H":
        peer = eigenthings.HessianOperator(model, data, eigenthings.supervised_loss(loss))
    else:
        peer = eigenthings.GGNOperator(
            model, data, eigenthings.supervised_forward, eigenthings.supervised_loss_of_output(loss)
        )
    return lambda: peer @ v


def peak_bytes() -> int:
    """Of this process: what a parent took before is in ru_maxrss, and not in VmHWM."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("expected VmHWM in /proc/self/status, found none; the peak is read on Linux")


def measured(name: str, which: str, reference: Path, rounds: int) -> dict[str, float | str]:
    """Seconds, peak memory and error of one product; in this process."""
    try:
        work = contender(name, which)
    except ImportError as error:
        return {"missing": str(error)}
    found = work()
    times, cpu = [], []
    for _ in range(rounds):
        begin = time.perf_counter(), time.process_time()
        work()
        times.append(time.perf_counter() - begin[0])
        cpu.append(time.process_time() - begin[1])
    peak = peak_bytes()
    right = load_file(reference)[which]
    error = float((found.detach().double() - right).norm() / right.norm())
    return {"seconds": min(times), "cpu": min(cpu), "peak": peak, "error": error}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        name, which, reference = options.only
        print(json.dumps(measured(name, which, Path(reference), options.rounds)))
        return 0
    result: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        reference = Path(folder) / "exact.safetensors"
        save_file(exact(), reference)
        table = Table(
            "product", "library", "seconds", "CPU seconds", "peak (GiB)", "relative error"
        )
        for which in ("G", "H"):
            for name in NAMES:
                command = [sys.executable, "-m", "bench.tokens", "--rounds", str(options.rounds)]
                done = subprocess.run(
                    [*command, "--only", name, which, str(reference)],
                    check=False,
                    capture_output=True,
                    text=True,
                )
                if done.returncode:
                    said = done.stderr.strip().splitlines()
                    found = {"missing": said[-1] if said else "no word"}
                else:
                    found = json.loads(done.stdout.strip().splitlines()[-1])
                result[f"{which} v, {name}"] = found
                if "missing" in found:
                    table.add_row(f"{which} v", name, "-", "-", "-", str(found["missing"])[:60])
                    continue
                peak = f"{found['peak'] / 2**30:.2f}"
                seconds, error = f"{found['seconds']:.2f}", f"{found['error']:.1e}"
                table.add_row(f"{which} v", name, seconds, f"{found['cpu']:.2f}", peak, error)
    Console().print(table)
    own = max(found["peak"] for key, found in result.items() if key.endswith("deepspec"))
    print(f"deepspec below 4 GiB: {'yes' if own < MOST_BYTES else 'missed'}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
