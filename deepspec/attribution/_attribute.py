"""The whole attribution of a trained classifier, or of any array with class structure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from deepspec.arguments import as_path, shown
from deepspec.attribution.by_layer import attribute_layers
from deepspec.attribution.cost import Cost, estimate, require_memory
from deepspec.attribution.decomposition import total_trace
from deepspec.attribution.gauss_newton_claims import untrained_shares
from deepspec.attribution.hessian_claims import HessianSide, hessian_side
from deepspec.attribution.measurement import Measurement, Settings, forms_gram, measure
from deepspec.attribution.result import Attribution, versions
from deepspec.attribution.side_of_g import GaussNewtonSide, gauss_newton_side
from deepspec.attribution.split import SplitAttribution
from deepspec.attribution.stages import Stages
from deepspec.class_structure.array import ClassArray, gradients
from deepspec.class_structure.cells import Convention
from deepspec.class_structure.gram import restore_gram
from deepspec.class_structure.groups import Groups
from deepspec.class_structure.rows import GradientRows
from deepspec.engine.distributed import speaks
from deepspec.engine.errors import NoSecondDerivative
from deepspec.layerwise import Layers
from deepspec.problem import Problem
from deepspec.seeds import Seed, whole_seed

LARGE = 2 * 10**8
# A shorter job needs no word beforehand.
WORTH_SAYING = 10.0


def attribute(
    problem: Problem | ClassArray,
    *,
    test: Problem | None = None,
    untrained: Problem | None = None,
    convention: Convention = "jmlr2020",
    seed: Seed = 0,
    draws: int | None = None,
    steps: int | None = None,
    probes: int = 1,
    exact_up_to: int | None = None,
    groups: Groups | None = None,
    checkpoint: str | Path | None = None,
    layers: bool | Layers = False,
    weight_decay: float | None = None,
) -> Attribution:
    """Find which part of a classifier's spectrum has which cause, beside nulls.

    Takes G = Σ w_{i,c'} g_{i,c'} g_{i,c'}ᵀ apart into class means, deviations of cross-class means,
    scatter within and own-class means (Papyan 2020, eq. 6.4; Papyan 2019, eq. 28), knocks each
    part out by subtraction and by projection (Papyan 2020, Definitions 3.1–3.3), and judges the
    papers' six claims beside nulls (:func:`deepspec.attribution.verdicts.judge` states the rule).
    Of a :class:`~deepspec.ClassArray` everything but Hess and E is found.

    Parameters
    ----------
    problem
        The trained net and its training data; or any array with class structure.
    test
        The same net on other data, attributed likewise.
    untrained
        The untrained net on the training data, to show beside it.
    convention
        "jmlr2020" (Papyan 2020) or "icml2019" (Papyan 2019) for the knockouts of G; the
        decomposition is given in both.
    seed
        All randomness follows from it; a generator gives one.
    draws
        Of each null; by default 19, or 4 where n · p is above 2 · 10⁸.
    steps, probes
        Lanczos steps and probes of each density; by default 100, or 32 where n · p is large.
    exact_up_to
        Where n · C is at most this, the spectra of G and of all its knockouts are exact; by
        default wherever, by an estimate, the Gram matrix fits the memory and its eigenvalue
        problems take about a minute (about 5,300).
    groups
        Classes taken together where there are very many, as in :func:`deepspec.gradients`.
    checkpoint
        A folder that finished stages are kept in: killed at any moment, the same call goes on
        there, and ends with the same bits on the CPU.
    layers
        Attribute features, errors and gradients of every layer, too (Papyan 2020, §7); or the
        :class:`~deepspec.Layers` of the same problem, made with options of one's own.
    weight_decay
        That the net was trained with: with ``layers``, weights are held against their class part.

    Raises
    ------
    TypeError
        If it is neither a problem nor an array.
    MemoryError
        If by an estimate it does not fit the memory, before any work.
    ValueError
        If the problems do not fit together, ``draws`` is below 2 or ``steps`` below 1, or the net
        is the same for every parameter (no gradient at all).

    >>> import torch
    >>> model = torch.nn.Linear(3, 3, dtype=torch.float64)
    >>> _ = torch.nn.init.zeros_(model.weight), torch.nn.init.zeros_(model.bias)
    >>> data = torch.eye(3, dtype=torch.float64).repeat(4, 1), torch.arange(3).repeat(4)
    >>> found = attribute(Problem(model, data), draws=3)
    >>> round(found.train.trace, 6), found.train.exact
    (1.333333, True)
    """
    started = time.perf_counter()
    array = _array_of(problem, convention, groups)
    net = problem if isinstance(problem, Problem) else None
    large = net is not None and net.size * net.num_rows > LARGE
    settings = Settings(
        convention=convention,
        seed=whole_seed(seed),
        draws=(4 if large else 19) if draws is None else draws,
        steps=(32 if large else 100) if steps is None else steps,
        probes=probes,
        exact_up_to=exact_up_to,
        mini_bulk=10 if large else 30,
        tolerance=1e-2 if large else 1e-3,
    )
    _check(problem, settings, test=test, untrained=untrained)
    by_layer = _layers_of(problem, layers, convention)
    folder = None if checkpoint is None else as_path(checkpoint, "checkpoint")
    before: dict[str, float] = {}
    if untrained is not None:
        from_start = _whole(untrained, convention, groups)
        before = _untrained(untrained, from_start, settings, folder)
    found = {"train": _split(array, net, settings, "train", before, _inside(folder, "train"))}
    if test is not None:
        of_test = _whole(test, convention, groups)
        found["test"] = _split(of_test, test, settings, "test", {}, _inside(folder, "test"))

    def split(array: ClassArray, name: str, place: Path | None) -> SplitAttribution:
        return _split(array, None, settings, name, {}, place)

    return Attribution(
        problem=array.rows.fingerprint() if net is None else net.fingerprint(),
        num_classes=array.num_classes,
        parameters=array.rows.width,
        settings=settings,
        splits=found,
        has_untrained=untrained is not None,
        plan={} if net is None else dict(net.plan),
        versions=versions(),
        layers={} if by_layer is None else attribute_layers(by_layer, split, folder, weight_decay),
        left_out={} if by_layer is None else by_layer.left_out,
        seconds=time.perf_counter() - started,
    )


def _layers_of(
    problem: Problem | ClassArray, layers: bool | Layers, convention: Convention
) -> Layers | None:
    if layers is False:
        return None
    if not isinstance(problem, Problem):
        raise TypeError(
            f"expected a deepspec.Problem for its layers, got {type(problem).__name__}; an array "
            "of vectors has none"
        )
    if layers is True:
        return Layers(problem, convention=convention)
    if not isinstance(layers, Layers) or layers.problem is not problem:
        raise ValueError(
            f"expected layers as true, false or deepspec.Layers of the same problem, got {layers!r}"
        )
    return layers


def _inside(folder: Path | None, name: str) -> Path | None:
    return None if folder is None else folder / name


def _array_of(
    problem: Problem | ClassArray, convention: Convention, groups: Groups | None
) -> ClassArray:
    if isinstance(problem, ClassArray):
        if groups is not None:
            raise ValueError("expected groups= with a Problem, got it with an array; leave it out")
        return problem
    if not isinstance(problem, Problem):
        raise TypeError(
            f"expected a deepspec.Problem or a deepspec.ClassArray, got {type(problem).__name__}; "
            "make one with deepspec.Problem(model, data) or deepspec.ClassArray(vectors, labels)"
        )
    return _whole(problem, convention, groups)


def _check(
    problem: Problem | ClassArray,
    settings: Settings,
    *,
    test: Problem | None,
    untrained: Problem | None,
) -> None:
    for name, other in (("test", test), ("untrained", untrained)):
        if other is None:
            continue
        if not isinstance(problem, Problem) or not isinstance(other, Problem):
            raise TypeError(
                f"expected {name} as a deepspec.Problem beside another one, got "
                f"{type(other).__name__} beside {type(problem).__name__}"
            )
        if (other.size, other.num_classes) != (problem.size, problem.num_classes):
            raise ValueError(
                f"expected the {name} problem to have the same net: {problem.size} parameters and "
                f"{problem.num_classes} classes; got {other.size} and {other.num_classes}"
            )
    for name in ("draws", "steps", "probes", "exact_up_to"):
        value = getattr(settings, name)
        if value is None and name == "exact_up_to":
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"expected {name} as a whole number of at least 0, got {shown(value)}")
    if settings.draws < 2:
        raise ValueError(f"expected at least 2 draws of each null, got {settings.draws}")
    if settings.steps < 1 or settings.probes < 1:
        raise ValueError(
            f"expected at least 1 step and 1 probe, got {settings.steps} and {settings.probes}"
        )


def _stages(
    array: ClassArray, net: Problem | None, settings: Settings, folder: Path | None, cost: Cost
) -> Stages:
    if net is None and isinstance(array.rows, GradientRows):
        net = array.rows.problem  # a layer's: without Hess, but with products that count

    def spent() -> int:
        return 0 if net is None else sum(net.engine.spent.values())

    def follow(plan: Mapping[str, Any]) -> None:
        if net is not None and dict(plan) != dict(net.plan):
            net.plan = dict(plan)

    configuration = {**vars(settings), **array.rows.fingerprint(), "torch": torch.__version__}
    return Stages(
        folder,
        configuration,
        spent=spent,
        plan=dict if net is None else lambda: dict(net.plan),
        follow=follow,
        costs=cost.seconds,
        group=array.rows.group,
    )


def _whole(problem: Problem, convention: Convention, groups: Groups | None) -> ClassArray:
    """The array of a problem's gradients, where its rows × classes can be worked on."""
    problem.require_classes()
    if not problem.keeps_logits:
        needed = 8 * problem.num_rows * problem.num_classes
        raise MemoryError(
            f"expected rows × classes within logit_memory={problem.logit_memory:,} for an "
            f"attribution, got {problem.num_rows:,} × {problem.num_classes:,}; make the problem "
            f"with logit_memory={needed} or more if several times that is there, take fewer rows, "
            "or use deepspec.gradients(problem, groups=...).parts with top_eigenpairs"
        )
    return gradients(problem, convention, groups)


def _untrained(
    problem: Problem, array: ClassArray, settings: Settings, folder: Path | None
) -> dict[str, float]:
    """What each cause removes in the untrained net."""
    place = _inside(folder, "untrained")
    cost = estimate(array, problem, settings)
    require_memory(array, cost)
    stages = _stages(array, problem, settings, place, cost)

    def shares(_: Path | None) -> dict[str, float]:
        measured = measure(array, settings)
        total = total_trace(measured.operator, settings.seed).value
        top = float(measured.pairs.values[: measured.count].sum())
        return untrained_shares(measured, total - top)

    with stages.shown("the untrained net"):
        found = stages.run("causes of G", dict[str, float], shares)
    problem.engine.cache.release()
    return found


def _split(
    array: ClassArray,
    net: Problem | None,
    settings: Settings,
    name: str,
    untrained: dict[str, float],
    folder: Path | None,
) -> SplitAttribution:
    """One split: V in the coordinates of its rows, then Hess and E."""
    if net is not None:
        _require_imperfect(net, name)
    cost = estimate(array, net, settings)
    require_memory(array, cost)
    console = Console(stderr=True)
    if speaks() and console.is_terminal and sum(cost.seconds.values()) > WORTH_SAYING:
        console.print(f"attribution of the {name} data: {cost}", highlight=False)
    stages = _stages(array, net, settings, folder, cost)
    with stages.shown(f"attribution ({name})"):
        if forms_gram(array, settings):
            _form(array, stages)
        measuring = _Once(lambda: measure(array, settings))
        of_g = stages.run(
            "causes of G",
            GaussNewtonSide,
            lambda _: gauss_newton_side(measuring(), untrained),
        )
        of_hessian, missing = _hessian(net, measuring, of_g.edge, stages)
    if net is not None:
        net.engine.cache.release()
    labels = array.cells.sample_labels
    return SplitAttribution(
        samples=len(labels),
        soft_labels=net is not None and net.has_soft_labels,
        loss=math.nan if net is None else net.loss,
        error_rate=math.nan if net is None else net.error_rate,
        class_counts=torch.bincount(labels, minlength=array.num_classes).tolist(),
        hessian_spectra=() if of_hessian is None else of_hessian.spectra,
        hessian_projected=of_g.top[:0] if of_hessian is None else of_hessian.projected,
        alignment=None if of_hessian is None else of_hessian.alignment,
        **{**vars(of_g), "findings": of_g.findings + (of_hessian.findings if of_hessian else ())},
        seconds_by_stage=stages.seconds,
        matvecs_by_stage=stages.matvecs,
        without_hessian=missing,
    )


def _form(array: ClassArray, stages: Stages) -> None:
    """S of the array, from this run or from an earlier one."""
    formed = stages.run("Gram matrix of G", dict[str, torch.Tensor], lambda _: array.gram.state())
    array.__dict__["gram"] = restore_gram(formed, array.rows.dtype)


class _Once:
    """A computation that several stages may need, and none where all of them were kept."""

    def __init__(self, work: Callable[[], Measurement]) -> None:
        self._work = work
        self._found: Measurement | None = None

    def __call__(self) -> Measurement:
        if self._found is None:
            self._found = self._work()
        return self._found


def _hessian(
    net: Problem | None, measuring: _Once, edge: float, stages: Stages
) -> tuple[HessianSide | None, str]:
    """Hess and E, or why they are missing: G does not depend on second derivatives."""
    if net is None:
        return None, "an array of vectors has no Hessian"
    try:
        found = stages.run(
            "Hess and E",
            HessianSide,
            lambda place: hessian_side(measuring(), net, edge, place),
        )
    except NoSecondDerivative as error:
        return None, str(error)
    return found, ""


def _require_imperfect(problem: Problem, name: str) -> None:
    largest = float(problem.residuals.abs().max())
    precision = torch.finfo(problem.dtype)
    if largest < (precision.tiny / precision.eps) ** 0.5:
        wider = "" if problem.dtype == torch.float64 else "compute in float64, or "
        raise ValueError(
            f"expected probabilities that differ from the labels, but on the {name} data none "
            f"differs by more than {largest:.1e}: the fit is perfect, and what is left of the "
            f"Hessian underflows in {problem.dtype}; {wider}"
            "measure an earlier moment of the training, which is another net"
        )
