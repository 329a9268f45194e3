"""The attributions in a folder, in the order in which a person would count them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from deepspec.attribution import Attribution
from deepspec.storage.checkpoint import MANIFEST

MOST = 1000  # folders of a run, beyond which a slider is no help


@dataclass(frozen=True, kw_only=True)
class Runs:
    """Where attributions were saved, and what to call each."""

    folders: tuple[Path, ...]
    names: tuple[str, ...]

    @classmethod
    def under(cls, folder: str | Path) -> Runs:
        """The folder itself if it is a saved attribution, or all that lie within it.

        Folders whose names begin with a dot are unfinished work, and are left out.

        Raises
        ------
        FileNotFoundError
            If there are none.
        ValueError
            If there are more than a thousand.
        """
        root = Path(folder)
        asked = (
            f"expected a folder that deepspec attribute wrote, or one that holds some, got {root}"
        )
        if not root.is_dir():
            raise FileNotFoundError(f"{asked}: it does not exist")
        if (root / MANIFEST).is_file():
            return cls(folders=(root,), names=(root.resolve().name,))
        found = [
            manifest.parent
            for manifest in root.rglob(MANIFEST)
            if not any(part.startswith(".") for part in manifest.relative_to(root).parts)
            and _is_attribution(manifest)
        ]
        if not found:
            raise FileNotFoundError(f"{asked}: it holds none")
        if len(found) > MOST:
            raise ValueError(f"{asked}: it holds {len(found)}; name a folder within it")
        found.sort(key=lambda path: natural(str(path.relative_to(root))))
        return cls(folders=tuple(found), names=tuple(str(path.relative_to(root)) for path in found))

    def load(self, index: int) -> Attribution:
        """One of them; the last few stay in memory."""
        return _load(self.folders[index])


def natural(name: str) -> list[tuple[int, int | str]]:
    """A key by which ``epoch-9`` comes before ``epoch-10``.

    >>> sorted(["epoch-10", "epoch-9"], key=natural)
    ['epoch-9', 'epoch-10']
    """
    return [
        (0, int(piece)) if piece.isdigit() else (1, piece)
        for piece in re.split(r"([0-9]+)", name)
        if piece
    ]


def _is_attribution(manifest: Path) -> bool:
    """A manifest may be another result's: a density's, a checkpoint's."""
    with manifest.open("rb") as file:
        kind = rb'"kind":\s*"%b"' % Attribution.__name__.encode()
        return re.search(kind, file.read(4096)) is not None


@lru_cache(maxsize=8)
def _load(folder: Path) -> Attribution:
    return Attribution.load(folder)
