"""Language models as problems, and parameters by name."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from typer.testing import CliRunner

import deepspec
from deepspec import GaussNewton, Hessian, Problem, block_spectra, language_model
from deepspec.cli import app
from deepspec.operators import ParameterBlock
from tests.row_cases import Form, TinyTransformer, V, dense

SEQUENCES = [[3, 7, 7, 1], [5, 2], [0, 9, 4]]


class Masked(TinyTransformer):
    """Takes named arguments, as those of Hugging Face."""

    def forward(  # type: ignore[override]
        self, input_ids: Tensor, attention_mask: Tensor | None = None, use_cache: bool = True
    ) -> dict[str, Tensor]:
        assert not use_cache
        assert attention_mask is not None
        return {"logits": super().forward(input_ids)}


def net(kind: type[nn.Module] = TinyTransformer) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return kind().double().eval()


def mean_of_sequences(z: Tensor, y: Tensor) -> Tensor:
    """The mean over all predicted tokens of the three sequences, from logits of padded ids."""
    losses = [
        F.cross_entropy(row[: len(ids) - 1], torch.tensor(ids[1:]), reduction="sum")
        for row, ids in zip(z, SEQUENCES, strict=True)
    ]
    return torch.stack(losses).sum() / sum(len(ids) - 1 for ids in SEQUENCES)


def test_a_language_model_predicts_each_token_from_those_before() -> None:
    padded = torch.zeros(3, 4, dtype=torch.long)
    mask = torch.zeros(3, 4)
    for row, ids in enumerate(SEQUENCES):
        padded[row, : len(ids)], mask[row, : len(ids)] = torch.tensor(ids), 1
    form = Form("", lambda: None, mean_of_sequences)  # type: ignore[arg-type]
    expected = dense(form, net(), padded, padded)

    def tokenizer(texts: list[str]) -> dict[str, Any]:
        return {"input_ids": [[int(word) for word in text.split()] for text in texts]}

    texts = [" ".join(map(str, ids)) for ids in SEQUENCES]
    problems = [
        language_model(net(), SEQUENCES),
        language_model(net(Masked), SEQUENCES, batch_size=1),
        language_model(net(Masked), {"input_ids": padded, "attention_mask": mask}),
        language_model(net(), padded, attention_mask=mask, batch_size=2),
        language_model(net(), texts, tokenizer=tokenizer),
    ]
    v = torch.ones(problems[0].size, 1, dtype=torch.float64)
    for problem in problems:
        assert (problem.num_rows, problem.num_samples) == (6, 3)
        assert abs(problem.loss - float(expected["loss"])) < 1e-12
        for name, operator in (("G", GaussNewton), ("Hess", Hessian)):
            assert float((operator(problem) @ v - expected[name] @ v).abs().max()) < 1e-10


def test_the_standard_error_is_by_sequence() -> None:
    problem = language_model(net(), SEQUENCES)
    sums = torch.zeros(3, dtype=torch.float64)
    excess = (problem.row_losses - problem.loss) / 6
    for row, sequence in enumerate([0, 0, 0, 1, 2, 2]):
        sums[sequence] += excess[row]
    assert problem.loss_error == pytest.approx(float((sums.square().sum() * 1.5).sqrt()), rel=1e-12)


@pytest.mark.parametrize(
    ("tokens", "options", "error", "words"),
    [
        ("a text", {}, TypeError, r"give \[text\]"),
        (["a", "b"], {}, TypeError, "a tokenizer for texts"),
        ([[1], [2]], {}, ValueError, "at least 2 tokens"),
        ({"ids": 3}, {}, TypeError, "input_ids"),
        (3, {}, TypeError, "expected ids"),
        ([[0.5, 1.0]], {}, TypeError, "whole ids"),
        ([[1, 2]], {"attention_mask": torch.ones(1, 3)}, ValueError, "attention_mask"),
    ],
)
def test_what_are_no_tokens_is_refused(
    tokens: object, options: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        language_model(net(), tokens, **options)


def test_attention_maps_that_will_not_fit_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    model.config = type("Config", (), {"n_head": 2, "n_layer": 2})()
    monkeypatch.setattr("deepspec.next_tokens.free_memory", lambda device: 1000)
    with pytest.warns(RuntimeWarning, match="attention maps of all layers"):
        language_model(model, SEQUENCES, verify=False)


# ---- parameters by name -------------------------------------------------------------------------


class Adapted(nn.Module):
    """A frozen linear map with a low-rank adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 3).requires_grad_(False)
        self.lora_A, self.lora_B = nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (self.base(x) + self.lora_B(self.lora_A(x)))


@pytest.mark.parametrize(
    ("patterns", "names"),
    [
        ("blocks.*.self_attn.*", {"in_proj_weight", "in_proj_bias", "out_proj"}),
        ("re:^blocks[.]0[.]norm[12]", {"norm1", "norm2"}),
        (["embed.*", "place"], {"embed", "place"}),
    ],
)
def test_parameters_are_chosen_by_name(patterns: Any, names: set[str]) -> None:
    problem = language_model(net(), SEQUENCES, parameters=patterns)
    for name in problem.space.names:
        assert any(word in name for word in names), name
    whole = language_model(net(), SEQUENCES)
    block = ParameterBlock(GaussNewton(whole), problem.space.names)
    v = torch.ones(problem.size, 1, dtype=torch.float64)
    assert float((GaussNewton(problem) @ v - block @ v).abs().max()) < 1e-12


def test_adapters_are_chosen_and_what_is_frozen_stays_out() -> None:
    model = Adapted()
    data = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    problem = Problem(model, data, parameters="*lora*")
    assert problem.space.names == ("lora_A.weight", "lora_B.weight")
    with pytest.raises(ValueError, match=r"fit 'base\.\*', got none"):
        Problem(model, data, parameters="base.*")


def test_all_blocks_come_in_one_table() -> None:
    problem = language_model(net(), SEQUENCES)
    G = GaussNewton(problem)
    matrix = G.to_dense()
    found = block_spectra(G, ["blocks.*", "embed", "place"], k=2)
    assert [b.name for b in found.blocks] == ["blocks.0", "blocks.1", "embed", "place"]
    start = 0
    for name, count in zip(problem.space.names, problem.space.counts, strict=True):
        if name == "embed.weight":
            block = matrix[start : start + count, start : start + count]
        start += count
    values = torch.linalg.eigvalsh(block).flip(0)
    embed = found["embed"]
    assert embed.size == V * 4
    assert float((embed.top - values[:2]).abs().max()) < 1e-10
    assert embed.trace == pytest.approx(float(values.sum()), abs=1e-10)
    assert str(found).splitlines()[3].split()[0] == "embed"
    assert "4 blocks of G" in repr(found)
    attention = block_spectra(G, {"attention": ["blocks.*.self_attn"]}, k=1)
    assert attention["attention"].size == 2 * (4 * 12 + 12 + 16 + 4)
    with pytest.raises(ValueError, match="parameters below 'head'"):
        block_spectra(G, "head")
    with pytest.raises(ValueError, match="names of tensors"):
        ParameterBlock(G, ("head",))
    with pytest.raises(TypeError, match="parameters of a problem"):
        ParameterBlock(deepspec.MatrixOperator(torch.eye(2)), ("a",))


def test_the_shell_has_parameters_blocks_and_groups(tmp_path: Path) -> None:
    source = tmp_path / "tiny_net.py"
    source.write_text(
        "import torch\n"
        "def build():\n"
        "    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(),"
        " torch.nn.Linear(4, 3)).double()\n"
        "def data():\n"
        "    torch.manual_seed(1)\n"
        "    return torch.randn(12, 3).double(), torch.arange(12) % 3\n"
    )
    given = ["--model", f"{source}:build", "--data", f"{source}:data"]
    runner = CliRunner()
    table = runner.invoke(app, ["blocks", *given, "--block", "*", "--json"])
    assert table.exit_code == 0, table.output
    found = json.loads(table.stdout[table.stdout.index("{") :])
    assert [block["name"] for block in found["blocks"]] == ["0", "2"]
    one = runner.invoke(app, ["blocks", *given, "--parameters", "2.*", "--matrix", "G"])
    assert one.stdout.splitlines()[-1].split()[:2] == ["2", "15"]
    out = ["--out", str(tmp_path / "out"), "--frequent", "2", "--logit-memory", "1000"]
    done = runner.invoke(
        app, ["attribute", *given, *out, "--draws", "2", "--parameters", "re:^2", "--json"]
    )
    assert done.exit_code == 0, done.output
    assert deepspec.Attribution.load(tmp_path / "out").num_classes == 3
    bad = runner.invoke(
        app, ["attribute", *given, "--out", str(tmp_path / "b"), "--parameters", "x"]
    )
    assert bad.exit_code == 2
