"""Three nets attributed before the code behind it was one array: the numbers have to stay."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.deepspec.attribution.regression_nets import KINDS, attributed, numbers

BEFORE = json.loads((Path(__file__).parent / "regression.json").read_text())
# Found from random probes, or by a rule that has changed on purpose (the mini-bulk's place).
CHANGED = {"mini-bulk", "bulk of Hess", "outliers of Hess"}


def different(before: Any, now: Any, where: str, scale: float = 0.0) -> list[str]:
    """Where two trees of numbers differ by more than 1e-5, relative to the largest of a list."""
    if isinstance(before, dict):
        return [line for k in before for line in different(before[k], now[k], f"{where}.{k}")]
    if isinstance(before, list):
        size = max((abs(x) for x in before if isinstance(x, float) and math.isfinite(x)), default=0)
        pairs = enumerate(zip(before, now, strict=True))
        return [line for i, (a, b) in pairs for line in different(a, b, f"{where}[{i}]", size)]
    if isinstance(before, float):
        if math.isnan(before):
            return [] if math.isnan(now) else [f"{where}: {before} became {now}"]
        close = abs(before - now) <= 1e-5 * max(abs(before), scale)
        return [] if close else [f"{where}: {before} became {now}"]
    return [] if before == now else [f"{where}: {before} became {now}"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_exact_has_stayed(kind: str) -> None:
    before, now = BEFORE[kind], json.loads(json.dumps(numbers(attributed(kind))))
    for claim in CHANGED:
        before["findings"].pop(claim)
    for claim, finding in before["findings"].items():
        # Nulls are other draws now: the shares stay, what is concluded near a null may not.
        assert finding[:1] + finding[3:] == pytest.approx(
            now["findings"][claim][:1] + now["findings"][claim][3:], rel=1e-5, nan_ok=True
        )
    before.pop("findings")
    if kind == "convnet":
        # In float32, what of the means no scatter spans hangs on a decision about scatter's rank.
        before["knockouts"]["within_class"].pop()
        now["knockouts"]["within_class"].pop()
    assert not different(before, now, kind)
