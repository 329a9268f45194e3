"""How wrong is a block-diagonal? Exact blocks and Kronecker approximations of G, over training."""

from __future__ import annotations

from pathlib import Path

from deepspec.report.plots import block_diagonals_over_training
from deepspec.report.plots.style import png
from validation._curvature import Moment, moments
from validation._study import Profile, Study, Verdict

LARGE = 0.5
SMALL = 0.8


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def run(profile: Profile, folder: Path | None) -> Verdict:
    """Relative errors, λ₁ and overlaps of every block-diagonal with G, after some epochs."""
    numbers: dict[str, float] = {}
    sentences: list[str] = []
    answers: list[bool] = []
    for kind, runs in moments(profile).items():
        for epoch in runs[0]:
            several = [run[epoch] for run in runs]
            prefix = f"{kind}_{epoch}"
            numbers[f"{prefix}_random_blocks"] = mean([mean(m.random_blocks) for m in several])
            for name in several[0].agreement.whole.by_approximation:
                wholes = [m.agreement.whole for m in several]
                numbers[f"{prefix}_{name}_error"] = mean([w[name].relative_error for w in wholes])
                numbers[f"{prefix}_{name}_top"] = mean([w.top_ratio(name) for w in wholes])
                numbers[f"{prefix}_{name}_overlap"] = mean([w[name].overlap for w in wholes])
            answers += [order_one(moment) for moment in several]
            sentences.append(
                f"{kind}, {epoch} epochs: error {numbers[f'{prefix}_block_diagonal_error']:.2f} "
                f"(random blocks {numbers[f'{prefix}_random_blocks']:.2f}; CFAC "
                f"{numbers[f'{prefix}_cfac_error']:.2f}, KFAC "
                f"{numbers[f'{prefix}_kfac_error']:.2f}), λ₁ at "
                f"{numbers[f'{prefix}_block_diagonal_top']:.0%}"
            )
        if folder is not None:
            first = {epoch: moment.agreement for epoch, moment in runs[0].items()}
            null = {epoch: moment.random_blocks for epoch, moment in runs[0].items()}
            figure = block_diagonals_over_training(first, null)
            (folder / f"block-diagonal-{kind}.png").write_bytes(png(figure))
    numbers["of_order_one"] = mean([float(answer) for answer in answers])
    return Verdict(all(answers), "; ".join(sentences), numbers)


def order_one(moment: Moment) -> bool:
    """Whether the exact block-diagonal errs by order one, and λ₁ is far too small.

    If layers were what G is made of, the error would be small beside that of random blocks.
    """
    whole = moment.agreement.whole
    error = whole["block_diagonal"].relative_error
    null = mean(moment.random_blocks)
    return error > LARGE and error > LARGE * null and whole.top_ratio("block_diagonal") < SMALL


STUDY = Study(
    name="block-diagonal",
    claim="The block-diagonal of G by layers errs by order one, at every time of training",
    source="arXiv 2602.00816, against arXiv 2012.03801 (layers resemble the whole)",
    prediction="a large Frobenius error, and a largest eigenvalue that is far too small",
    tolerance=(
        "exact block-diagonal, every seed and moment: relative error above 0.5, and above half of "
        "that of random blocks of the same sizes (null); λ₁ below 80 % of the true one"
    ),
    run=run,
)
