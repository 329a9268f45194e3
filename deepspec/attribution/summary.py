"""An attribution in plain words and in tables."""

from __future__ import annotations

import math
from collections.abc import Mapping

from deepspec.attribution.alignment import Alignment, mean_square
from deepspec.attribution.decomposition import Decomposition
from deepspec.attribution.mini_bulk import QUANTILES, MiniBulk
from deepspec.attribution.split import SplitAttribution
from deepspec.attribution.verdicts import CLAIMS, Finding

Table = list[list[str]]


def conclusion(splits: Mapping[str, SplitAttribution], num_classes: int) -> str:
    """What the attribution says of this net: a list of sentences for each split."""
    return "\n\n".join(
        "\n- ".join([f"On the {name} data:", *_of_split(split, num_classes)])
        for name, split in splits.items()
    )


def _of_split(split: SplitAttribution, num_classes: int) -> list[str]:
    outliers = split.outliers
    sentences = []
    scatter = max(split.class_counts) > 1
    if split.soft_labels:
        sentences.append("Labels are probabilities: a row's class is its most probable label.")
    if not scatter:
        sentences.append(
            "No class has two samples, so nothing scatters within classes: there is no bulk, and "
            "no outlier to tell from it."
        )
    elif outliers:
        gone = outliers - min(outliers, split.outliers_without("between_class"))
        sentences.append(
            f"{outliers} {_plural(outliers, 'eigenvalue')} of G "
            f"{'stands' if outliers == 1 else 'stand'} clear of the bulk (C = {num_classes}); "
            f"{_that_vanish(gone, outliers)} when the class means are projected out."
        )
        sentences.append(_nulls_in_words(split.finding("outliers")))
    else:
        sentences.append("No eigenvalue of G stands clear of the bulk.")
    for answer, verb in (
        ("supported", "Supported"),
        ("not supported", "Not supported"),
        ("not decided", "Not decided"),
    ):
        named = [
            f"{CLAIMS[f.claim].feature} come{'s' if _single(f.claim) else ''} from "
            f"{CLAIMS[f.claim].cause} ({removed(f)})"
            for f in split.findings
            if f.answer == answer
        ]
        if named:
            sentences.append(f"{verb}: {'; '.join(named)}.")
    sentences += [f"{CLAIMS[f.claim].feature}: {f.advice}" for f in split.findings if f.advice]
    if scatter and split.mini_bulk is not None and split.mini_bulk.rank:
        sentences.append(_mini_bulk_in_words(split.mini_bulk))
    if split.without_hessian:
        sentences.append(f"Without Hess and E: {split.without_hessian}.")
    error = split.predicted.relative_error("coupled")[: max(1, num_classes - 1)].abs()
    means = split.predicted.relative_error("means")[: max(1, num_classes - 1)].abs()
    if scatter and outliers and len(error):
        sentences.append(
            "Averages of gradients alone predict the top "
            f"{'eigenvalue' if len(error) == 1 else f'{len(error)} eigenvalues'} to within "
            f"{100 * float(means.max()):.0f} %, and with {split.predicted.matvecs_each['coupled']} "
            f"matvecs each to within {_error(float(error.max()))}."
        )
    return sentences


def _nulls_in_words(finding: Finding) -> str:
    shuffled, regrouped, random = (
        _share(float(finding.nulls[name].mean()))
        for name in ("shuffled labels", "regrouped samples", "a random subspace")
    )
    return (
        f"Subtracting G_class removes {_share(finding.removed)} of what any knockout of its rank "
        f"could remove from the top C; a random subspace removes {random}, means under shuffled "
        f"labels {shuffled}, means over random groups of samples {regrouped}."
    )


def removed(finding: Finding) -> str:
    """How much of its feature a cause removes; that it is absent is not that nothing goes."""
    there = finding.present and not math.isnan(finding.removed)
    return _share(finding.removed) if there else "no such feature"


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.0f} %"


def _error(value: float) -> str:
    return "0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def _single(claim: str) -> bool:
    return not claim.startswith("outliers")


def _plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _that_vanish(gone: int, count: int) -> str:
    """
    >>> _that_vanish(0, 1), _that_vanish(1, 1), _that_vanish(0, 3), _that_vanish(1, 3)
    ('it remains', 'it vanishes', 'none of them vanishes', '1 of them vanishes')
    """
    if count == 1:
        return "it vanishes" if gone else "it remains"
    return f"{gone or 'none'} of them {'vanishes' if gone < 2 else 'vanish'}"


def tables(splits: Mapping[str, SplitAttribution], parameters: int) -> dict[str, Table]:
    """Every table of every split, by title; the first row names the columns."""
    found: dict[str, Table] = {}
    for name, split in splits.items():
        found[f"Verdicts ({name})"] = _verdicts(split)
        for decomposition in split.decompositions:
            title = f"Parts of G, {decomposition.convention} ({name})"
            found[title] = _parts(decomposition, parameters)
        found[f"Outliers predicted from means ({name})"] = _predicted(split)
        if split.mini_bulk is not None and split.mini_bulk.rank:
            found[f"Mini-bulk ({name})"] = _mini_bulk(split.mini_bulk)
        if split.alignment is not None:
            found[f"Alignment ({name})"] = _alignment(split.alignment)
        if split.layout is not None:
            found[f"Two-way layout of the mean gradients ({name})"] = _layout(split)
    return found


def _parts(decomposition: Decomposition, parameters: int) -> Table:
    """The four parts, their sum, and apart from these the means, which are three of them."""
    head = ["part", "dimension, at most", "trace", "share of tr G", "largest eigenvalues"]
    rows = [
        [
            part.name.replace("_", " "),
            f"{min(part.rank, parameters):,}",
            f"{part.trace:.4g}",
            _share(part.share),
            ", ".join(f"{float(v):.3g}" for v in part.top[:4]),
        ]
        for part in decomposition.parts
    ]
    *four, means = rows
    total = sum(part.trace for part in decomposition.parts[:-1])
    share = sum(part.share for part in decomposition.parts[:-1])
    whole = [f"the four: G to {decomposition.residual:.1e}", "", f"{total:.4g}", _share(share), ""]
    return [head, *four, whole, ["all but within class", *means[1:]]]


def _verdicts(split: SplitAttribution) -> Table:
    rows = [["feature", "said cause", "removed", "by projection", "nulls", "as built", "verdict"]]
    for finding in split.findings:
        claim = CLAIMS[finding.claim]
        nulls = "; ".join(
            f"{name} {_share(float(draws.mean()))} (at most {_share(float(draws.max()))})"
            for name, draws in finding.nulls.items()
            if len(draws)
        )
        rows.append(
            [
                claim.feature,
                claim.cause,
                removed(finding),
                _share(finding.by_projection),
                nulls,
                _share(finding.untrained),
                f"{finding.answer}: {finding.reason}",
            ]
        )
    return rows


def _predicted(split: SplitAttribution) -> Table:
    predicted = split.predicted
    rows = [["i", "true λ", "G_class", "all means", "first order", "root", "coupled"]]
    for i in range(len(predicted.true)):
        row = [str(i + 1), f"{float(predicted.true[i]):.4g}"]
        for method in ("class_only", "means", "first_order", "root", "coupled"):
            value = float(getattr(predicted, method)[i])
            error = 100 * float(predicted.relative_error(method)[i])
            row.append("–" if math.isnan(value) else f"{value:.4g} ({error:+.1f} %)")
        rows.append(row)
    spent = predicted.matvecs_each
    rows.append(
        [
            "matvecs",
            "",
            "means",
            f"{predicted.matvecs_for_means} in all",
            "+0",
            f"+{spent['root']} each",
            f"+{spent['coupled']} each",
        ]
    )
    return rows


def _mini_bulk(found: MiniBulk) -> Table:
    """Where it lies beside the bulk: both at the same quantiles."""
    head = ["", *(f"{100 * q:.0f} % below" for q in QUANTILES)]
    rows = [
        [name, *(f"{float(v):.3g}" for v in values)]
        for name, values in (("mini-bulk", found.quantiles), ("bulk", found.bulk_quantiles))
    ]
    return [head, *rows]


def _mini_bulk_in_words(found: MiniBulk) -> str:
    if not found.count:
        return "No eigenvector of G lies mostly among cross-class means: there is no mini-bulk."
    return (
        f"The mini-bulk, {found.count} eigenvalues whose eigenvectors lie mostly among cross-class "
        f"means, lies {found.side} the bulk, {found.decades:.1f} decades from it on average; "
        f"{_share(found.outside)} of it is outside the bulk's range."
    )


def _alignment(found: Alignment) -> Table:
    rows = [["spaces", "share of one inside the other", "smallest cosine"]]
    for name, cosines in found.cosines.items():
        if len(cosines):
            share, least = mean_square(cosines), float(cosines.min())
            rows.append([f"top C of {name}", f"{100 * share:.1f} %", f"{least:.3f}"])
    rows.append(["random subspaces", f"{100 * found.chance**2:.2g} %", ""])
    for name, share in found.gradient_share.items():
        words = name if name == "class means" else f"top C of {name}"
        rows.append([f"loss gradient inside {words}", f"{100 * share:.1f} %", ""])
    return rows


def _layout(split: SplitAttribution) -> Table:
    layout = split.layout
    assert layout is not None
    return [
        ["effect", "alone", "added to the other"],
        ["class c", _share(layout.class_alone), _share(layout.by_class)],
        ["cross-class c'", _share(layout.cross_class_alone), _share(layout.by_cross_class)],
        ["interaction", "", _share(layout.interaction)],
    ]
