"""What a call of `generate` asks for, checked before anything is computed."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stochroute.generation.receipts import Receipt
from stochroute.paths import derive_paths, draw_seed, parse_path, parse_paths

PathId = int | str | Receipt


class NoDifference(UserWarning):
    """Several paths were asked for, but nothing on them differs."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts as tensors, one a row, padded at the left.

    Attributes:
        inputs: int64 ids (P, width), or embeddings (P, width, hidden).
        attention_mask: int64 (P, width).
        lengths: real tokens of each prompt.
    """

    inputs: Tensor
    attention_mask: Tensor
    lengths: list[int]

    @property
    def embedded(self) -> bool:
        """Whether the prompts came as embeddings."""
        return self.inputs.dim() == 3

    def as_arguments(self, rows: list[int]) -> dict[str, Tensor]:
        """The arguments of transformers' generate for the given rows."""
        index = torch.tensor(rows, device=self.inputs.device)
        name = "inputs_embeds" if self.embedded else "input_ids"
        return {name: self.inputs[index], "attention_mask": self.attention_mask[index]}


@dataclass(frozen=True, eq=False)
class Rows:
    """One row for each text to be written: rows of one prompt together.

    Attributes:
        paths: path ids.
        prompt_index: which prompt each row continues.
        seed: the seed of the ids, None when the caller named them.
        expected: the receipts that the caller gave in place of ids, by row.
    """

    paths: list[int]
    prompt_index: list[int]
    seed: int | None
    expected: dict[int, Receipt]

    @property
    def most_for_one_prompt(self) -> int:
        """The largest number of rows that continue the same prompt."""
        return max(Counter(self.prompt_index).values())


def pick_inputs(inputs: Tensor | None, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
    """The one of the three ways to pass prompts that was used: ids (P, width) or embeddings (P, width, hidden).

    Raises:
        ValueError: none or several were used, or what was passed is no such tensor.
    """
    given = [(n, t) for n, t in (("input_ids", inputs), ("input_ids", input_ids), ("inputs_embeds", inputs_embeds))]
    given = [(name, tensor) for name, tensor in given if tensor is not None]
    if not given:
        raise ValueError("input_ids is missing: pass the output of the tokenizer, as in generate(**inputs)")
    if len(given) > 1:
        raise ValueError("the prompts were passed twice: pass input_ids or inputs_embeds, once")
    name, tensor = given[0]
    dimensions = 3 if name == "inputs_embeds" else 2
    if not isinstance(tensor, Tensor) or tensor.dim() != dimensions:
        shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(
            f"{name} must be a tensor of {dimensions} dimensions, one row a prompt, got {shape}: "
            f"call the tokenizer with return_tensors='pt'"
        )
    return tensor


def read_prompts(
    given: Tensor,
    attention_mask: Tensor | None,
    pad_token_id: int | None,
    eos_token_ids: list[int],
) -> Prompts:
    """The prompts, with a mask made as transformers makes it where none is given.

    Raises:
        ValueError: there are no prompts, one is empty, they are padded at the right, or the mask has another shape.
    """
    if given.shape[0] == 0:
        raise ValueError("input_ids holds no prompt: pass at least one")
    if attention_mask is None:
        # the pad token marks padding only where it is not also the end of a text
        pads = given.dim() == 2 and pad_token_id is not None and pad_token_id not in eos_token_ids
        attention_mask = (given != pad_token_id).long() if pads else torch.ones(given.shape[:2], dtype=torch.int64)
    if attention_mask.shape != given.shape[:2]:
        raise ValueError(
            f"attention_mask has shape {tuple(attention_mask.shape)} for prompts of shape {tuple(given.shape[:2])}: "
            f"pass both from one call of the tokenizer"
        )
    attention_mask = attention_mask.to(given.device).long()
    lengths = attention_mask.sum(-1).tolist()
    if given.shape[1] == 0 or 0 in lengths:
        empty = 0 if given.shape[1] == 0 else lengths.index(0)
        raise ValueError(f"prompt {empty} is empty: give at least one token, such as the tokenizer's bos token")
    if not bool(attention_mask[:, -1].all()):
        raise ValueError("the prompts are padded at the right: set tokenizer.padding_side = 'left'")
    return Prompts(given, attention_mask, lengths)


def read_rows(
    paths: int | Sequence[PathId] | Sequence[Sequence[PathId]], seed: int | None, spread: bool, prompts: int
) -> Rows:
    """The rows that `paths` and `seed` ask for.

    Args:
        paths: a number of paths for each prompt; or ids (receipts count as ids): flat for one prompt, flat with one a
            row or one list a prompt for several.
        seed: the seed of a number of paths; None draws one.
        spread: whether a number of paths means siblings.
        prompts: the number of prompts.

    Raises:
        ValueError: a number or an id is bad, ids do not fit the number of prompts, or a seed comes with ids.
    """
    if isinstance(paths, int) and not isinstance(paths, bool):
        if paths < 1:
            raise ValueError(f"paths={paths} is no number of paths: ask for at least 1, or give a list of path ids")
        seed = draw_seed() if seed is None else seed
        ids = [derive_paths(seed, paths, prompt=p, spread=spread) for p in range(prompts)]
        return Rows(
            [path for group in ids for path in group],
            [p for p in range(prompts) for _ in range(paths)],
            seed,
            {},
        )
    if isinstance(paths, str | bytes) or not isinstance(paths, Sequence):
        raise ValueError(f"paths={paths!r} is no number and no list: a single path id goes into a list, paths=[id]")
    if seed is not None:
        raise ValueError(f"seed={seed} has no effect beside explicit path ids: leave one of the two out")
    entries: list[Any] = list(paths)
    nested = [isinstance(p, Sequence) and not isinstance(p, str) for p in entries]
    groups: list[list[PathId]]
    if any(nested):
        if not all(nested) or len(entries) != prompts:
            raise ValueError(f"paths as lists must be one list for each of the {prompts} prompts, got {len(entries)}")
        groups = [list(group) for group in entries]
    else:
        if len(entries) % prompts:
            raise ValueError(f"{len(entries)} path ids cannot be dealt evenly to {prompts} prompts: give one a row")
        each = len(entries) // prompts
        groups = [entries[p * each : (p + 1) * each] for p in range(prompts)]
    flat = [entry for group in groups for entry in group]
    parse_paths(entry.path if isinstance(entry, Receipt) else entry for entry in flat)
    return Rows(
        [parse_path(entry.path if isinstance(entry, Receipt) else entry) for entry in flat],
        [p for p, group in enumerate(groups) for _ in group],
        None,
        {row: entry for row, entry in enumerate(flat) if isinstance(entry, Receipt)},
    )


def check_difference(rows: Rows, silent: bool, kinds_on: bool, samples: bool) -> None:
    """Says so when several paths of one prompt cannot differ.

    Raises:
        ValueError: no kind of noise is on at all and nothing is sampled. Where the strengths are 0 it is a
            NoDifference warning, so that a sweep may begin at 0.
    """
    most = rows.most_for_one_prompt
    if most < 2 or samples or not silent:
        return
    if not kinds_on:
        raise ValueError(
            f"{most} paths were asked for, but the routing has no noise and nothing is sampled: pass do_sample=True, "
            f"or route with structural, attention or expert noise"
        )
    warnings.warn(
        f"{most} paths were asked for, but every strength is 0 and nothing is sampled: all texts will be the same",
        NoDifference,
        stacklevel=4,
    )
