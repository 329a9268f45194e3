"""A language model of letters on Python's own documentation: which tokens make the outliers?"""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from deepspec import ClassStructure, Problem, language_model
from deepspec.class_structure import class_means
from validation._study import Profile, Study, Verdict

ALPHABET = " etaoinsrhldcumfpgwybvkxjqz"
LENGTH, WIDTH, TOP, PERMUTATIONS = 24, 32, 5, 999


class Characters(nn.Module):
    """One causal layer of attention over letters; the head is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(ALPHABET), WIDTH)
        self.place = nn.Parameter(0.1 * torch.randn(LENGTH, WIDTH))
        self.block = nn.TransformerEncoderLayer(WIDTH, 2, 64, dropout=0.0, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        future = torch.ones(length, length, dtype=torch.bool).triu(1)
        hidden = self.embed(tokens) + self.place[:length]
        return self.block(hidden, src_mask=future) @ self.embed.weight.T


def letters() -> Int[Tensor, " n"]:
    """The documentation in small letters and spaces."""
    text = " ".join(topics.values()).lower()
    words = "".join(c if c in ALPHABET else " " for c in text).split()
    return torch.tensor([ALPHABET.index(c) for c in " ".join(words)])


def trained(steps: int, tokens: Int[Tensor, " n"]) -> tuple[nn.Module, nn.Module]:
    """The net before and after Adam."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        before, model = Characters(), Characters()
        model.load_state_dict(before.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(steps):
        start = torch.randint(len(tokens) - LENGTH, (32, 1), generator=generator)
        batch = tokens[start + torch.arange(LENGTH)]
        logits = model(batch[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return before.eval(), model.eval()


def shares(problem: Problem) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"], Tensor]:
    """Each class's share of the top of G_class, its frequency, and its share of tr G_class."""
    means = class_means(ClassStructure(problem))
    values, vectors = torch.linalg.eigh(means.gram)
    top = vectors[:, -TOP:].square() @ values[-TOP:] / values[-TOP:].sum()
    present = torch.tensor([c for (c,) in means.index])
    frequency = problem.class_counts[present].double() / problem.num_rows
    return top, frequency, means.gram.diagonal() / means.gram.trace()


def rank_correlation(left: Tensor, right: Tensor) -> float:
    """Spearman's."""
    ranks = torch.stack([left.argsort().argsort(), right.argsort().argsort()]).double()
    return float(torch.corrcoef(ranks)[0, 1])


def run(profile: Profile, folder: Path | None) -> Verdict:
    """Train, and hold frequencies against shares and against permuted ones."""
    tokens = letters()
    steps, sequences = (150, 24) if profile == "quick" else (2000, 200)
    before, after = trained(steps, tokens)
    # Beyond what the net was likely to see; each sequence whole.
    data = tokens[: sequences * LENGTH * 7].view(sequences, 7, LENGTH)[:, 3]
    problem = language_model(after, data, batch_size=32)
    top, frequency, whole = shares(problem)
    found = rank_correlation(top, frequency)
    generator = torch.Generator().manual_seed(1)
    draws = torch.tensor(
        [
            rank_correlation(top, frequency[torch.randperm(len(frequency), generator=generator)])
            for _ in range(PERMUTATIONS)
        ]
    )
    level = float(draws.quantile(0.99))
    start = rank_correlation(*shares(language_model(before, data, batch_size=32))[:2])
    lead = frequency.argsort(descending=True)[:TOP]
    numbers = {
        "spearman": found,
        "null_99": level,
        "untrained": start,
        "loss": problem.loss,
        "loss_error": problem.loss_error,
        "share_of_most_frequent": float(top[lead].sum()),
        "their_frequency": float(frequency[lead].sum()),
        "their_share_of_trace": float(whole[lead].sum()),
    }
    return Verdict(
        found > max(level, 0.5),
        f"loss {problem.loss:.2f} ± {problem.loss_error:.2f}: frequency and share of G_class's top "
        f"{TOP} have rank correlation {found:.2f} (permuted: at most {level:.2f} in 99 %; "
        f"untrained {start:.2f}); the {TOP} most frequent letters are "
        f"{numbers['their_frequency']:.0%} of the text and {numbers['share_of_most_frequent']:.0%} "
        "of that top",
        numbers,
    )


STUDY = Study(
    name="frequent-tokens-lead-class-means",
    claim="In a language model the outliers from class means belong to the frequent tokens",
    source="Papyan (2020) §6.1, with the classes of Wu and Papyan (2024), Linguistic Collapse",
    prediction="w_c grows with frequency, so frequent tokens' means span the top of G_class",
    tolerance="rank correlation above 0.5, and above 99 % of permuted frequencies",
    run=run,
)
