"""Trace and Frobenius norm from products, with standard errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from scipy.special import stdtrit
from torch import Tensor

from deepspec.arguments import check_whole
from deepspec.krylov._arguments import check_operator
from deepspec.krylov._probes import dimension, unit_probe
from deepspec.krylov._progress import progress
from deepspec.krylov._resuming import Images, opened
from deepspec.operators.base import SymmetricOperator
from deepspec.seeds import Seed, whole_seed
from deepspec.storage.checkpoint import Checkpoint, finite, require
from deepspec.storage.display import Result

# The t_i share all columns but one, so the standard error of independent ones is too small. With
# this factor and Student's, over flat, spiked, geometric, 1/i and indefinite spectra, 4 to 60
# products and 150 seeds each, 1.96 standard errors cover 94 to 100 % for the trace and 89 to 99 %
# for the norm, where the few largest eigenvalues are squared and errors are skewed.
SHARED = 1.5

# What a product's rounding leaves, in units of ε times the norm of what it rounds: the singular
# values of the images of dense matrices of low rank have 0.3 to 2.5 of it, at 60 to 1500 rows.
ROUNDING = 4.0


@dataclass(frozen=True, repr=False, kw_only=True)
class Estimate(Result):
    """A number that was estimated from random vectors, with its standard error and its cost.

    >>> Estimate(value=6.3192, standard_error=0.0871, matvecs=64)
    Estimate(6.319 ± 0.087, 64 matvecs)
    """

    value: float
    standard_error: float
    matvecs: int

    def __repr__(self) -> str:
        if not self.standard_error:
            return f"Estimate({self.value:.6g}, exact to rounding, {self.matvecs:,} matvecs)"
        places = max(0, min(12, 1 - math.floor(math.log10(self.standard_error))))
        value, error = f"{self.value:,.{places}f}", f"{self.standard_error:,.{places}f}"
        if abs(self.value) >= 1e6 or self.standard_error < 1e-4:
            value, error = f"{self.value:.6g}", f"{self.standard_error:.2g}"
        return f"Estimate({value} ± {error}, {self.matvecs:,} matvecs)"


def trace(
    A: SymmetricOperator,
    matvecs: int = 64,
    *,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> Estimate:
    """Estimate the sum of the eigenvalues from few products (XTrace, akin to Hutch++).

    Epperly, Tropp and Webber (2024), section 2.1.
    m = matvecs/2 random directions ω_i give a basis Q of AΩ. For each i, the trace on the span of
    the *other* images is exact, and ω_i estimates what is off that span:

        t_i = tr Q_iᵀAQ_i + (p − m + 1)/‖u_i‖² u_iᵀAu_i,   u_i = (I − Q_iQ_iᵀ) ω_i.

    Exact up to rounding when the rank of A is below m, or m = p; where eigenvalues decay, the error
    falls like the tail, not like 1/√m. The standard error is that of the t_i, widened because they
    share Q (:data:`SHARED`) and by Student's factor, which is 2.2 at 6 products and 1.2 at 16.

    It holds what rounding leaves, too, and so is 0 only where every product is: in float32, that
    is about ε √r ‖A‖, r the rank found, and √p times the largest image taken for rounding, for
    eigenvalues as small as that cannot be told from it. Truth is meant for the operator in its
    own dtype: rounding the parameters or the data to float32 is not in the error.

    Parameters
    ----------
    matvecs
        At least 4; an odd one is left unused. Taken to no more than 2 p.
    seed
        Where the directions come from.
    checkpoint, checkpoint_every
        As in :func:`deepspec.krylov.lanczos`; the state is the images so far. That of one
        estimate serves the other, :func:`frobenius_norm`, at no further product.

    Raises
    ------
    ValueError
        If ``matvecs`` is below 4.
    FloatingPointError
        If a product is not finite.
    CheckpointMismatch
        If the checkpoint is of another operator or configuration.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([4.0, -1.0] + 20 * [0.0], dtype=torch.float64)))
    >>> round(trace(A, matvecs=8).value, 9)
    3.0
    """
    sketch = _Sketch(A, matvecs, whole_seed(seed), checkpoint, checkpoint_every)
    quadratic = (sketch.directions * sketch.images).sum(0)
    on_span = torch.diagonal(sketch.coarse).sum() - sketch.left_out(sketch.coarse)
    cross = (sketch.across * sketch.inside).sum(0)
    within = (sketch.inside * (sketch.coarse @ sketch.inside)).sum(0)
    size = math.sqrt(sketch.coarse.shape[0]) * float(sketch.basis_images.norm())  # above Σ |λ|
    unseen = math.sqrt(dimension(A)) * sketch.dropped
    return sketch.estimate(on_span, quadratic - 2 * cross + within, unseen, size)


def frobenius_norm(
    A: SymmetricOperator,
    matvecs: int = 64,
    *,
    seed: Seed = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: float = 30.0,
) -> Estimate:
    """Estimate the root of the sum of squared eigenvalues from few products.

    By the sketch of :func:`trace` applied to A², at no more products:
    ‖A‖² = ‖AQ_i‖² + (p − m + 1)/‖u_i‖² ‖Au_i‖² for each i left out; AQ and AΩ are at hand. The
    standard error is that of :func:`trace`, rounding included; in float32 it is never below
    2 ε ‖A‖.

    Parameters
    ----------
    matvecs, seed, checkpoint, checkpoint_every
        As in :func:`trace`.

    Raises
    ------
    ValueError, FloatingPointError, CheckpointMismatch
        As :func:`trace`.

    >>> from deepspec.operators.matrix import MatrixOperator
    >>> A = MatrixOperator(torch.diag(torch.tensor([4.0, -3.0] + 20 * [0.0], dtype=torch.float64)))
    >>> round(frobenius_norm(A, matvecs=8).value, 9)
    5.0
    """
    sketch = _Sketch(A, matvecs, whole_seed(seed), checkpoint, checkpoint_every)
    gram = sketch.basis_images.T @ sketch.basis_images
    on_span = torch.diagonal(gram).sum() - sketch.left_out(gram)
    beyond = sketch.images - sketch.basis_images @ sketch.inside
    size = float(torch.diagonal(gram).sum())
    square = sketch.estimate(on_span, beyond.square().sum(0), sketch.dropped**2, size)
    norm = math.sqrt(max(square.value, 0.0))
    error = square.standard_error / (2 * norm) if norm else math.sqrt(square.standard_error)
    return Estimate(value=norm, standard_error=error, matvecs=square.matvecs)


@dataclass(frozen=True, eq=False)
class _Basis:
    """Q by rows, orthonormal, of the span of AΩ = QR; and AQ, or what there is of it."""

    rows: Float[Tensor, "r p"]
    upper: Float[Tensor, "m m"]
    complete: bool  # whether the span holds all that A shows
    dropped: float  # the largest singular value of AΩ that was taken for rounding
    images: Images


class _Products:
    """AΩ for random directions Ω, then AQ; between two blocks it can be written down."""

    def __init__(self, A: SymmetricOperator, count: int, seed: int) -> None:
        self.operator = A
        self.probes = torch.stack([unit_probe(A, seed, i) for i in range(count)], dim=1)
        self.images = Images(A, self.probes)
        self.basis: _Basis | None = None

    def complete(self, store: Checkpoint | None) -> _Basis:
        """Take the products that are left, saving on the way and at the end."""
        done = self.images.done + (0 if self.basis is None else self.basis.images.done)
        with progress("sketch", 2 * self.probes.shape[1], done) as advance:

            def after_block(count: int) -> None:
                for _ in range(count):
                    advance()
                if store is not None:
                    store.offer(self.state)

            self.images.complete(after_block)
            self.basis = self.basis or self._orthonormal()
            self.basis.images.complete(after_block)
        if store is not None:
            store.save(*self.state())
        return self.basis

    def _orthonormal(self) -> _Basis:
        A, count = self.operator, self.probes.shape[1]
        images = self.scaled_images()
        basis, upper = torch.linalg.qr(images)
        dropped, complete = 0.0, count == dimension(A)
        if complete:  # the probes span it all, the images only what is not small beside rounding
            basis = torch.linalg.qr(self.probes.double()).Q
        else:
            left, sizes, _ = torch.linalg.svd(images, full_matrices=False)
            kept = sizes > ROUNDING * A.epsilon * sizes[0]
            complete = not bool(kept.all())
            if complete:
                basis, dropped = left[:, kept], float(sizes[~kept][0])
        rows = basis.T.contiguous()
        return _Basis(rows, upper.contiguous(), complete, dropped, Images(A, rows.T))

    def scaled_images(self) -> Float[Tensor, "p m"]:
        """AΩ in float64 for directions of length √dimension."""
        return self.images.rows.T.double() * math.sqrt(dimension(self.operator))

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """All that the next product depends on.

        The basis too: found again in another arithmetic, it could be another one.
        """
        arrays = {"images": self.images.rows}
        if self.basis is None:
            return {}, arrays
        arrays |= {"basis": self.basis.rows, "upper": self.basis.upper}
        arrays["basis images"] = self.basis.images.rows
        return {"complete": self.basis.complete, "dropped": self.basis.dropped.hex()}, arrays

    def restore(self, saved: Mapping[str, Any], arrays: Mapping[str, Tensor]) -> None:
        """Become the products whose :meth:`state` this is."""
        self.images.restore(arrays["images"])
        if "basis" not in arrays:
            return
        count = self.probes.shape[1]
        require(self.images.done == count, "the number of images")
        double = torch.zeros((), dtype=torch.float64, device=self.operator.device)
        rank = arrays["basis"].shape[0]
        rows = finite(arrays["basis"], "the basis", (rank, self.operator.size), double)
        upper = finite(arrays["upper"], "the triangle", (count, count), double)
        dropped = float.fromhex(saved["dropped"])
        require(0 <= dropped < math.inf, "what was taken for rounding")
        images = Images(self.operator, rows.T)
        self.basis = _Basis(rows, upper, saved["complete"] is True, dropped, images)
        self.basis.images.restore(arrays["basis images"])


class _Sketch:
    """Ω, AΩ, an orthonormal basis Q of its span, AQ, and each direction's share outside."""

    def __init__(
        self,
        A: SymmetricOperator,
        matvecs: int,
        seed: int,
        checkpoint: str | Path | None,
        checkpoint_every: float,
    ) -> None:
        check_operator(A)
        check_whole(matvecs, 4, "matvecs")
        count = min(matvecs // 2, dimension(A))
        settings = {"matvecs": matvecs, "seed": seed}
        store, saved = opened(checkpoint, checkpoint_every, A, "sketch", settings)
        taken = _Products(A, count, seed)
        if store is not None and saved is not None:
            with store.restoring():
                taken.restore(*saved)
        A.prepare(matvecs)
        found = taken.complete(store)
        basis, self.complete, self.dropped = found.rows.T, found.complete, found.dropped
        self.rounding = ROUNDING * A.epsilon
        self.images, self.basis_images = taken.scaled_images(), found.images.rows.T.double()
        self.directions = taken.probes.double() * math.sqrt(dimension(A))
        self.matvecs = count + basis.shape[1]
        self.coarse = basis.T @ self.basis_images
        self.coarse = (self.coarse + self.coarse.T) / 2
        self.across = self.basis_images.T @ self.directions
        within = basis.T @ self.directions
        self.absent = torch.zeros_like(within)
        if not self.complete:
            # Q_i spans Q but for the direction s_i orthogonal to every other column of R.
            eye = torch.eye(count, dtype=basis.dtype, device=basis.device)
            absent = torch.linalg.solve_triangular(found.upper, eye, upper=True).T
            self.absent = absent / absent.norm(dim=0)
        self.inside = within - self.absent * (self.absent * within).sum(0)
        outside = self.directions.square().sum(0) - self.inside.square().sum(0)
        self.scale = (dimension(A) - count + 1) / outside.clamp_min(1e-300)

    def left_out(self, matrix: Float[Tensor, "m m"]) -> Float[Tensor, " m"]:
        """sᵢᵀ M sᵢ for each direction that one estimate leaves out."""
        return (self.absent * (matrix @ self.absent)).sum(0)

    def estimate(self, on_span: Tensor, off_span: Tensor, unseen: float, size: float) -> Estimate:
        """The mean of the estimates with one direction left out each, and its standard error.

        ``unseen`` is what a complete basis may have missed among the rounding, and ``size`` what
        the products' relative rounding is multiplied by. Student's factor makes 1.96 standard
        errors of few estimates what they are of many.
        """
        each = on_span if self.complete else on_span + self.scale * off_span
        error = math.hypot(unseen, self.rounding * size)
        if not self.complete:
            student = float(stdtrit(len(each) - 1, 0.975)) / 1.96
            error = math.hypot(error, SHARED * student * float(each.std()) / len(each) ** 0.5)
        return Estimate(value=float(each.mean()), standard_error=error, matvecs=self.matvecs)
