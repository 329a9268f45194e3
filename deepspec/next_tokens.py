"""A causal language model and its texts as a problem: each token but the first is a row."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from deepspec.memory import free_memory
from deepspec.problem import Problem

IGNORED = -100
# Attention maps that take more than this share of the free memory are worth a word.
SHARE_OF_MEMORY = 0.25


def language_model(
    model: nn.Module,
    tokens: Any,
    *,
    tokenizer: Callable[..., Mapping[str, Any]] | None = None,
    attention_mask: Int[Tensor, "b t"] | None = None,
    batch_size: int = 8,
    max_length: int | None = None,
    **options: Any,
) -> Problem:
    """The problem of predicting each token from those before it.

    Labels are the tokens shifted by one; the last input is left out, for it predicts nothing. The
    loss is the mean over all tokens that are predicted, not over batches: padding, order and batch
    size do not change it. Tied embeddings count once. Attention runs on PyTorch's plain kernel,
    the one that can be differentiated twice, which holds T × T numbers for each head of each layer.
    Tokens of one sequence are correlated: :attr:`deepspec.Problem.loss_error` is by sequence.

    Parameters
    ----------
    model
        Maps ids (b, t), and ``attention_mask`` if it takes one, to logits (b, t, V) or an output
        with ``.logits``, each from the tokens up to its own alone.
    tokens
        Ids (b, t); a list of sequences of ids, of any lengths; a mapping with ``"input_ids"`` and
        perhaps ``"attention_mask"``; or with a ``tokenizer`` a list of texts.
    tokenizer
        ``tokenizer(texts)["input_ids"]`` are their ids, as those of Hugging Face.
    attention_mask
        1 for tokens, 0 for padding; beside ids (b, t).
    batch_size
        Sequences at a time; logits take b · t · V numbers.
    max_length
        Longer sequences are cut off there.
    **options
        Of :class:`deepspec.Problem`, such as ``parameters`` or ``logit_memory``.

    Raises
    ------
    TypeError
        If ``tokens`` are in none of these forms.
    ValueError
        If no sequence has two tokens, or a mask has another shape.

    Warns
    -----
    RuntimeWarning
        If attention maps will take more than a quarter of the free memory.

    >>> class Bigrams(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.table = nn.Embedding(3, 3)
    ...     def forward(self, input_ids):
    ...         return self.table(input_ids)
    >>> problem = language_model(Bigrams(), [[0, 1, 2], [2, 1]])
    >>> problem.num_rows, problem.num_samples, problem.labels
    (3, 2, tensor([1, 2, 1]))
    """
    rows = _sequences(tokens, tokenizer, attention_mask, max_length)
    takes = _parameters_of(model)
    batches = [_batch(rows[i : i + batch_size], takes) for i in range(0, len(rows), batch_size)]
    _mind_attention(model, batches, options)
    return Problem(model, batches, **options)


def _sequences(
    tokens: Any,
    tokenizer: Callable[..., Mapping[str, Any]] | None,
    mask: Tensor | None,
    max_length: int | None,
) -> list[tuple[Tensor, Tensor]]:
    """Each sequence's ids with its mask; those without a token to predict are left out."""
    if isinstance(tokens, str):
        raise TypeError("expected a list of texts, got one text; give [text]")
    if isinstance(tokens, Sequence) and tokens and all(isinstance(t, str) for t in tokens):
        if tokenizer is None:
            raise TypeError("expected a tokenizer for texts; pass tokenizer=, or their ids")
        tokens = tokenizer(list(tokens))
    if isinstance(tokens, Mapping):
        if "input_ids" not in tokens:
            raise TypeError(f"expected a mapping with input_ids, got {list(tokens)}")
        given = tokens.get("attention_mask") if mask is None else mask
        tokens, mask = tokens["input_ids"], given
    try:
        ids = [torch.as_tensor(row) for row in tokens]
        masks = [torch.ones_like(row) for row in ids] if mask is None else list(mask)
        masks = [torch.as_tensor(row).bool() for row in masks]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(
            f"expected ids (b, t), a list of sequences of ids, a mapping with input_ids, or texts "
            f"with a tokenizer, got {type(tokens).__name__} ({error})"
        ) from error
    if any(row.ndim != 1 or row.is_floating_point() for row in ids):
        raise TypeError(
            "expected sequences of whole ids, each of one dimension; give a list of them"
        )
    if [len(row) for row in ids] != [len(row) for row in masks]:
        raise ValueError(
            "expected an attention_mask of the ids' shape, 1 for tokens, 0 for padding"
        )
    cut = slice(None, max_length)
    pairs = [(row[cut].long(), seen[cut]) for row, seen in zip(ids, masks, strict=True)]
    kept = [(row, seen) for row, seen in pairs if bool((seen[1:] & seen[:-1]).any())]
    if not kept:
        raise ValueError("expected a sequence of at least 2 tokens, so that one is predicted")
    return kept


def _parameters_of(model: nn.Module) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _batch(rows: list[tuple[Tensor, Tensor]], takes: set[str]) -> Any:
    """Inputs without the last token, labels without the first, padded on the right."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, (sequence, seen) in enumerate(rows):
        ids[row, : len(sequence)], mask[row, : len(sequence)] = sequence, seen
    labels = ids[:, 1:].where(mask[:, 1:] & mask[:, :-1], IGNORED)
    inputs = ids[:, :-1]
    if "input_ids" not in takes:
        return inputs, labels
    batch: dict[str, Any] = {"input_ids": inputs, "labels": labels}
    if "attention_mask" in takes:
        batch["attention_mask"] = mask[:, :-1].long()
    if "use_cache" in takes:
        batch["use_cache"] = False
    return batch


def _mind_attention(model: nn.Module, batches: Sequence[Any], options: Mapping[str, Any]) -> None:
    """Say what the plain attention kernel will hold, where that is much."""
    config = getattr(model, "config", None)
    heads = next(_numbers(config, "num_attention_heads", "n_head"), 0)
    layers = next(_numbers(config, "num_hidden_layers", "n_layer"), 0)
    shapes = [b["labels"].shape if isinstance(b, Mapping) else b[1].shape for b in batches]
    most = max(shape[0] * shape[1] ** 2 for shape in shapes)
    reference = next(model.parameters(), torch.zeros(()))
    needed = 2 * most * heads * layers * reference.element_size()
    device = torch.device(options.get("device") or reference.device)
    if needed > SHARE_OF_MEMORY * free_memory(device):
        warnings.warn(
            f"attention maps of all layers take about {needed / 1e9:.2g} GB for the largest batch "
            "(the kernel that can be differentiated twice holds T × T numbers a head); pass a "
            "smaller batch_size or max_length",
            RuntimeWarning,
            stacklevel=3,
        )


def _numbers(config: object, *names: str) -> Iterator[int]:
    for name in names:
        value = getattr(config, name, None)
        if isinstance(value, int):
            yield value
