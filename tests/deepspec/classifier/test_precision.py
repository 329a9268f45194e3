"""What is cast to a lower precision inside a model is seen, named, and sets the tolerances."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from deepspec import GaussNewton, Hessian, Problem, attribute, top_eigenpairs
from tests.deepspec.classifier.nets import data, made


class CastingNorm(nn.Module):
    """As LLaMA's: the mean square is taken in float32, whatever comes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor) -> Tensor:
        given, low = x.dtype, x.to(torch.float32)
        low = low * torch.rsqrt(low.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * low.to(given)


class CastingSoftmax(nn.Module):
    """As eager attention: its weights are made in float32."""

    def forward(self, x: Tensor) -> Tensor:
        return x * nn.functional.softmax(x, dim=-1, dtype=torch.float32).to(x.dtype)


class Tables(nn.Module):
    """Constants in float32, as of rotary positions, are constants."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(8).float().cos().to(x.dtype)


def net(inside: type[nn.Module]) -> nn.Module:
    def build() -> nn.Module:
        layers = nn.Sequential(nn.Linear(4, 8), inside(), nn.Linear(8, 8), inside())
        return nn.Sequential(layers, nn.Linear(8, 3))

    return made(build)


@pytest.mark.parametrize("inside", [CastingNorm, CastingSoftmax])
def test_a_cast_inside_is_named_and_sets_the_tolerance(inside: type[nn.Module]) -> None:
    with pytest.warns(RuntimeWarning, match=rf"0\.1 \({inside.__name__}\), .*float32 inside"):
        problem = Problem(net(inside), data())
    assert (problem.dtype, problem.precision) == (torch.float64, torch.float32)
    # Casts taken out, the same net in float64 throughout: what products should be.
    exact = made(lambda: net(inside))
    for module in exact.modules():
        if isinstance(module, inside):
            module.forward = _in_double(module)
    right = Problem(exact, data())
    assert right.precision == torch.float64
    for kind in (GaussNewton, Hessian):
        A, B = kind(problem), kind(right)
        assert A.epsilon == torch.finfo(torch.float32).eps
        assert (A - B).epsilon == A.deflate(top_eigenpairs(B, 1)).epsilon == A.epsilon
        found = top_eigenpairs(A, 5, tol=1e-12).values
        expected = torch.linalg.eigvalsh(B.to_dense()).flip(0)[:5]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert problem.plan["forward mode"] == "yes"


def _in_double(module: nn.Module):
    def norm(x: Tensor) -> Tensor:
        return module.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    def softmax(x: Tensor) -> Tensor:
        return x * x.softmax(-1)

    return norm if isinstance(module, CastingNorm) else softmax


def test_constants_and_whole_models_are_no_casts() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert Problem(net(Tables), data()).precision == torch.float64
        single = Problem(net(CastingNorm), data(), dtype=torch.float32)
    assert single.precision == torch.float32


@pytest.mark.filterwarnings("ignore:.*inside a model in float64:RuntimeWarning")
def test_everything_is_attributed_all_the_same() -> None:
    problem = Problem(net(CastingNorm), data())
    split = attribute(problem, draws=2, probes=1, steps=10).train
    assert split.hessian_spectra


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("recomputed", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("name", ["llama", "vit"])
def test_models_of_transformers(name: str, recomputed: bool, dtype: torch.dtype) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "num_labels": 3,
        "attn_implementation": "eager",
    }
    y = torch.arange(9) % 3
    given: dict[str, Tensor]
    if name == "llama":
        config = transformers.LlamaConfig(vocab_size=30, pad_token_id=0, **sizes)
        model = transformers.LlamaForSequenceClassification(config)
        given = {"input_ids": torch.randint(1, 30, (9, 6)), "labels": y}
    else:
        config = transformers.ViTConfig(image_size=8, patch_size=4, **sizes)
        model = transformers.ViTForImageClassification(config)
        given = {"pixel_values": torch.randn(9, 3, 8, 8), "labels": y}
    if recomputed:
        model.gradient_checkpointing_enable()
    problem = Problem(model, given, dtype=dtype)
    assert problem.precision == torch.float32
    G, H = GaussNewton(problem), Hessian(problem)
    for A in (G, H):
        u, v = torch.randn(2, problem.size, dtype=dtype)
        left, right = float(u @ (A @ v)), float(v @ (A @ u))
        assert abs(left - right) < 1e-4 * float(u.norm() * (A @ v).norm())
        assert len(top_eigenpairs(A, 3).values) == 3
    model.train()
    model(**given).loss.backward()
