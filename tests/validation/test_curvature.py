"""The studies of Kronecker approximations: their null by definition, and verdicts that can fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepspec import GaussNewton, Problem
from deepspec.zoo.datasets import digits
from deepspec.zoo.networks import mlp
from validation import _curvature, block_diagonal, cfac_beats_kfac
from validation._curvature import EPOCHS, Moment


@pytest.fixture(scope="module")
def measured() -> Moment:
    split = digits(2, seed=0)
    return _curvature._measured(mlp(64, (6,), seed=0).eval(), split.train, seed=0)


def with_moments(monkeypatch: pytest.MonkeyPatch, first: Moment, last: Moment) -> None:
    for module in (block_diagonal, cfac_beats_kfac):
        monkeypatch.setattr(module, "moments", lambda profile: {"net": [{0: first, EPOCHS: last}]})


def test_random_blocks_by_definition() -> None:
    split = digits(1, seed=0)
    problem = Problem(mlp(64, (2,), seed=0).eval(), split.train, dtype=torch.float64)
    sizes = [130, 4, 30]
    assert problem.size == sum(sizes)

    found = _curvature.random_block_error(problem, sizes, torch.Generator().manual_seed(5))

    G = GaussNewton(problem).to_dense()
    order = torch.randperm(problem.size, generator=torch.Generator().manual_seed(5))
    blocks = torch.zeros_like(G)
    for own in order.split(sizes):
        blocks[own[:, None], own] = G[own[:, None], own]
    assert abs(found - float((G - blocks).norm() / G.norm())) < 1e-10


def test_a_block_diagonal_that_is_right_fails(
    monkeypatch: pytest.MonkeyPatch, measured: Moment, tmp_path: Path
) -> None:
    whole = measured.agreement.whole
    exact = replace(whole["block_diagonal"], relative_error=0.1, eigenvalues=whole.eigenvalues)
    right = replace(whole, by_approximation={**whole.by_approximation, "block_diagonal": exact})
    better = replace(measured, agreement=replace(measured.agreement, whole=right))
    with_moments(monkeypatch, measured, better)

    verdict = block_diagonal.run("quick", tmp_path)

    assert not verdict.passed
    assert verdict.numbers["net_60_block_diagonal_error"] == pytest.approx(0.1)
    assert verdict.numbers["net_60_block_diagonal_top"] == pytest.approx(1.0)
    assert "net, 60 epochs: error 0.10" in verdict.finding
    assert (tmp_path / "block-diagonal-net.png").stat().st_size > 1000


@pytest.mark.parametrize("null", [True, False])
def test_cfac_must_be_nearer_than_kfac_and_than_its_null(
    monkeypatch: pytest.MonkeyPatch, measured: Moment, tmp_path: Path, null: bool
) -> None:
    def like(ratio: float, shuffled: float) -> Moment:
        layers = tuple(
            replace(
                layer,
                by_approximation={
                    **layer.by_approximation,
                    "kfac": replace(layer["kfac"], log_ratio_top=0.5),
                    "cfac": replace(layer["cfac"], log_ratio_top=ratio),
                },
            )
            for layer in measured.agreement.layers
        )
        return replace(
            measured,
            agreement=replace(measured.agreement, layers=layers),
            shuffled=[replace(found, log_ratio_top=shuffled) for found in measured.shuffled],
        )

    with_moments(monkeypatch, measured, like(0.1, 0.4))
    verdict = cfac_beats_kfac.run("quick", tmp_path)
    assert verdict.passed
    assert "0.50/0.40/0.10" in verdict.finding
    assert (tmp_path / "curvature-net-spectra.png").stat().st_size > 1000

    # Every kind of net decides: one of convolutions as much as the other.
    monkeypatch.setattr(
        cfac_beats_kfac,
        "moments",
        lambda profile: {
            "net": [{0: measured, EPOCHS: like(0.1, 0.4)}],
            "convnet": [{0: measured, EPOCHS: like(0.4, 0.4)}],
        },
    )
    verdict = cfac_beats_kfac.run("quick", None)
    assert not verdict.passed
    assert "convnet, 60 epochs, KFAC/shuffled/CFAC by layer: 0.50/0.40/0.40" in verdict.finding

    # As near with shuffled labels, or as far as KFAC: not the classes' doing.
    with_moments(monkeypatch, measured, like(0.1, 0.1) if null else like(0.4, 1.0))
    assert not cfac_beats_kfac.run("quick", None).passed
