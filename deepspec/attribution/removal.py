"""One part of a measured array knocked out: what is left of the second moment."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deepspec.attribution.decomposition import padded
from deepspec.attribution.knockouts import Knockout, SchurComplement, top_of
from deepspec.attribution.measurement import Measurement
from deepspec.attribution.spectra import Spectrum, exact_spectrum_of, lanczos_spectrum
from deepspec.class_structure.downdate import knocked_out, means_beyond_within
from deepspec.class_structure.gram import descending
from deepspec.class_structure.parts import CellMeans, MeanPart, Part
from deepspec.krylov import top_eigenpairs
from deepspec.operators import SymmetricOperator

# A knockout, and the spectrum that it leaves where that was asked for.
Measured = tuple[Knockout, Spectrum | None]


def _knockout(
    part: Part, subtracted: Float[Tensor, " k"], projected: Float[Tensor, " k"]
) -> Knockout:
    return Knockout(part=part.name, rank=part.rank, subtracted=subtracted, projected=projected)


def knock_out(measured: Measurement, name: str, *, thorough: bool) -> Measured:
    """Remove one part by subtraction and, if ``thorough``, by projection; and all that is left."""
    part = measured.part(name)
    if not isinstance(part, MeanPart):
        return _without_within(measured, part, thorough=thorough)
    count = measured.looked_at(name)
    shown = thorough and name != "global_mean"
    label = measured.label(name)
    if measured.exact:
        return _exactly(measured, part, name, thorough=thorough, shown=shown)
    start = part_free(measured, part)
    remaining = measured.operator.project_out(part)
    subtracted, spectrum = _estimated(measured, label, remaining, start, count, thorough=shown)
    projected = torch.full((count,), torch.nan, dtype=torch.float64)
    if thorough and (measured.means.complete or name != "cross_class"):
        basis = part.basis
        if measured.means.complete:
            image = measured.means.image @ (measured.means.basis.T @ basis)
        else:
            image = (measured.operator @ basis.to(measured.operator.dtype)).double()
        schur = SchurComplement(measured.operator, basis, image)
        projected, _ = _estimated(measured, label, schur, start, count, thorough=False)
    return _knockout(part, subtracted, projected), spectrum


def _exactly(
    measured: Measurement, part: MeanPart, name: str, *, thorough: bool, shown: bool
) -> Measured:
    """By S's eigenpairs: all eigenvalues where they are shown, else those that claims are about."""
    few = measured.enough
    projected = torch.full((few,), torch.nan, dtype=torch.float64)
    if thorough:
        left = knocked_out(measured.gram, part.basis, "projection")
        projected = top_of(left, few).clamp_min(0.0)
    left = knocked_out(measured.gram, part.basis)
    if not shown:
        return _knockout(part, top_of(left, few), projected), None
    values = left.eigenvalues().cpu()
    spectrum = exact_spectrum_of(measured.label(name), values, measured.count)
    subtracted = padded(values, measured.looked_at(name))
    return _knockout(part, subtracted, projected), spectrum


def part_free(measured: Measurement, part: Part) -> Float[Tensor, "m k"]:
    """The top eigenvectors of S with the part taken out of them: where to start from."""
    vectors = measured.pairs.vectors[:, : measured.count].to(part.dtype)
    return vectors - part @ vectors


def _estimated(
    measured: Measurement,
    label: str,
    operator: SymmetricOperator,
    start: Float[Tensor, "m k"],
    count: int,
    *,
    thorough: bool,
) -> tuple[Float[Tensor, " k"], Spectrum | None]:
    """The top eigenvalues of what is left, and if asked for all of its spectrum."""
    settings = measured.settings
    begin = start.to(operator.dtype) if bool(start.abs().max() > 0) else None
    found = top_eigenpairs(operator, count, tol=settings.tolerance, start=begin)
    top = padded(found.values.cpu(), count)
    if not thorough:
        return top, None
    first = measured.count
    spectrum = lanczos_spectrum(
        label,
        operator,
        found.values[:first],
        found.vectors[:, :first],
        steps=settings.steps,
        probes=settings.probes,
        seed=settings.seed,
        reorthogonalize=True,
    )
    return top, spectrum


def _without_within(measured: Measurement, part: Part, *, thorough: bool) -> Measured:
    """V − V_within, the means alone: from their Gram matrix where all cells are in it."""
    count = measured.looked_at("within_class")
    projected = torch.full((count,), torch.nan, dtype=torch.float64)
    label = measured.label("within_class")
    if measured.means.complete:
        values = descending(measured.means.gram).cpu()
        top, spectrum = padded(values, count), exact_spectrum_of(label, values, measured.count)
    else:
        means = CellMeans(measured.array.cells)
        vectors = measured.pairs.vectors[:, : measured.count].to(means.dtype)
        remaining = measured.operator.project_out(part)
        top, found = _estimated(measured, label, remaining, means @ vectors, count, thorough=True)
        assert found is not None
        spectrum = found
    if thorough and measured.exact and measured.means.complete:
        projected = padded(means_beyond_within(measured.gram, measured.means.basis).cpu(), count)
    return _knockout(part, top, projected), spectrum if thorough else None
