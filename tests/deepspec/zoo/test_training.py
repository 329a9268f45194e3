"""The recipe, schedules, snapshots, and runs that were stopped and went on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from deepspec.dynamics import Snapshots
from deepspec.storage.checkpoint import CheckpointMismatch
from deepspec.zoo.networks import mlp
from deepspec.zoo.training import Diverged, Training, learning_rate_at, train


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat(11)
    return torch.randn(33, 4, generator=generator) + labels[:, None], labels


def net(seed: int = 1) -> nn.Module:
    """With dropout, so that the model itself draws random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 3)
        return nn.Sequential(*layers)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("steps", [2, 11, 26])
def test_a_run_that_was_stopped_ends_in_the_same_bits(tmp_path: Path, steps: int) -> None:
    options = {"epochs": 5, "batch_size": 8, "seed": 3, "snapshots": [0, 2, 5], "save_every": 0.0}
    options["test"] = data(1)
    whole = net()
    expected = train(whole, *data(), folder=tmp_path / "whole", **options)
    stopped, calls = net(), 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == steps:
            raise KeyboardInterrupt

    stopped.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, *data(), folder=tmp_path / "part", **options)
    with pytest.raises(FileNotFoundError, match="finished training"):
        Training.load(tmp_path / "part")
    torch.rand(5)  # the global generator is elsewhere by now
    again = net()
    assert train(again, *data(), folder=tmp_path / "part", **options) == expected
    for left, right in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right)
    assert files(tmp_path / "whole") == files(tmp_path / "part")
    assert Training.load(tmp_path / "part") == expected
    assert len(expected.test_errors) == len(expected.errors) == 5


def test_a_run_that_is_done_is_read(tmp_path: Path) -> None:
    first = net()
    expected = train(first, *data(), epochs=3, folder=tmp_path)
    calls = []
    again = net()
    again.register_forward_hook(lambda *_: calls.append(again.training))
    assert train(again, *data(), epochs=3, folder=tmp_path) == expected
    assert calls == [False]  # the error alone is measured


def test_a_folder_keeps_to_its_run(tmp_path: Path) -> None:
    train(net(), *data(), epochs=3, folder=tmp_path)
    with pytest.raises(CheckpointMismatch, match="learning_rate"):
        train(net(), *data(), epochs=3, learning_rate=0.1, folder=tmp_path)
    with pytest.raises(CheckpointMismatch, match="model"):
        train(net(2), *data(), epochs=3, folder=tmp_path)
    with pytest.raises(CheckpointMismatch, match="data"):
        train(net(), *data(5), epochs=3, folder=tmp_path)


def test_a_folder_changes_nothing_and_the_global_generator_stays(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    plain, kept = net(), net()
    one = train(plain, *data(), epochs=3, seed=2)
    two = train(kept, *data(), epochs=3, seed=2, folder=tmp_path, snapshots="log:2")
    assert one == two
    assert torch.equal(torch.get_rng_state(), before)
    assert not kept.training
    final = Snapshots(tmp_path / "snapshots", net())[-1]
    assert torch.equal(final(data()[0]), plain(data()[0]))


def test_the_papers_schedule_is_torchs() -> None:
    """MultiStepLR multiplies; so must the resumed rate, to the bit."""
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], 0.05)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [7, 14])
    for epoch in range(21):
        assert learning_rate_at("step", 0.05, epoch, 21) == optimiser.param_groups[0]["lr"]
        optimiser.step()
        schedule.step()
    assert learning_rate_at("constant", 0.05, 20, 21) == 0.05


def test_sgd_by_hand() -> None:
    """One full batch a step: θ ← θ − rate (m), m ← 0.9 m + ∇ + decay θ."""
    inputs, labels = (part.double() if part.is_floating_point() else part for part in data())
    model = mlp(4, (), 3, seed=0).double()
    weight, bias = (p.detach().clone() for p in model.parameters())
    momenta = [torch.zeros_like(weight), torch.zeros_like(bias)]
    for epoch in range(4):
        residual = torch.softmax(inputs @ weight.T + bias, 1)
        residual = (residual - nn.functional.one_hot(labels, 3)) / len(labels)
        rate = learning_rate_at("cosine", 0.3, epoch, 4)
        gradients = residual.T @ inputs, residual.sum(0)
        for value, momentum, gradient in zip((weight, bias), momenta, gradients, strict=True):
            momentum.mul_(0.9).add_(gradient + 0.01 * value)
            value.sub_(rate * momentum)
    options = {"learning_rate": 0.3, "weight_decay": 0.01, "schedule": "cosine"}
    train(model, inputs, labels, epochs=4, **options)
    assert torch.allclose(model[1].weight, weight, atol=1e-12)
    assert torch.allclose(model[1].bias, bias, atol=1e-12)


def test_divergence_is_said_with_its_epoch(tmp_path: Path) -> None:
    model = mlp(4, (8, 8), 3, normalise=False)
    for _ in range(2):  # the second time from the state that the first left
        with pytest.raises(Diverged, match=r"^diverged at epoch \d+: .* lower the lear") as caught:
            train(model, *data(), epochs=9, learning_rate=1e6, folder=tmp_path, save_every=0.0)
        model = mlp(4, (8, 8), 3, normalise=False)
        assert 1 <= caught.value.epoch <= 9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 2}, "3 epochs"),
        ({"schedule": "linear"}, "expected schedule"),
        ({"snapshots": [0]}, "pass folder="),
        ({"snapshots": "log:1"}, "log:k"),
        ({"snapshots": [61]}, r"0\.\.60"),
    ],
)
def test_what_cannot_be_trained_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        train(net(), *data(), **options)  # type: ignore[arg-type]
