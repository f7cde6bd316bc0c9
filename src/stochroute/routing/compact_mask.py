"""An attention mask that carries positions instead of (q, k) entries, through transformers' mask interface.

What a mask function returns reaches the attention function untouched if it has four dimensions. Ours is an int32
tensor (b, 1, 4 or 4 + q, max(q, k)) of these rows:

    0  position of each key, −1 for padding
    1  cache slot of each key
    2  cache slot of each query
    3  width of the sliding window; larger than any slot where there is none
    4… only where the rule is neither causal nor a window: 1 where that query may see that key
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import causal_mask_function, sdpa_mask, sliding_window_overlay

from stochroute.kernels import Visibility

_HEADER = 4
_NO_WINDOW = 2**30
_WINDOW_OVERLAY = sliding_window_overlay(1).__qualname__


def compact_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    device: torch.device | str = "cpu",
    use_vmap: bool = False,
    **unused: Any,
) -> Tensor:
    """The compact mask; arguments as transformers' mask interface passes them."""
    key_slots = torch.arange(kv_length, device=device) + kv_offset
    query_slots = torch.arange(q_length, device=device) + q_offset
    if attention_mask is None:
        key_positions = key_slots.expand(batch_size, -1)
    else:
        real = attention_mask.to(device) != 0
        short = kv_offset + kv_length - real.shape[1]  # slots of a static cache that nothing has filled yet
        real = torch.nn.functional.pad(real, (0, max(0, short)))
        counted = torch.where(real, real.long().cumsum(-1) - 1, -1)
        key_positions = counted[:, kv_offset : kv_offset + kv_length]

    window = _window(mask_function)
    rows = _HEADER if window is not None else _HEADER + q_length
    mask = torch.full((batch_size, 1, rows, max(q_length, kv_length)), -1, dtype=torch.int32, device=device)
    mask[:, 0, 0, :kv_length] = key_positions.to(torch.int32)
    mask[:, 0, 1, :kv_length] = key_slots.to(torch.int32)
    mask[:, 0, 2, :q_length] = query_slots.to(torch.int32)
    mask[:, 0, 3].fill_(window or _NO_WINDOW)  # an assignment would copy the number from the host
    if window is None:
        allowed = sdpa_mask(
            batch_size,
            q_length,
            kv_length,
            q_offset=q_offset,  # pyright: ignore[reportArgumentType]  (static caches pass a tensor)
            kv_offset=kv_offset,
            mask_function=mask_function,
            attention_mask=attention_mask,
            allow_is_causal_skip=False,
            use_vmap=use_vmap,
            device=device,
        )
        assert allowed is not None
        mask[:, 0, _HEADER:, :kv_length] = allowed[:, 0].to(torch.int32)
    return mask


def read_compact_mask(mask: Tensor | None, q_length: int, kv_length: int) -> tuple[Visibility, Tensor]:
    """The visibility that a compact mask holds, and the key positions: int64 (b, k), −1 for padding.

    Raises:
        ValueError: the mask is not ours, because the caller passed one of four dimensions.
    """
    if mask is None or mask.dtype != torch.int32:
        raise ValueError(
            "attention routing makes its own masks from the 2-D attention_mask, but a 4-D one was given: pass the "
            "2-D mask, or set attention=None"
        )
    key_positions = mask[:, 0, 0, :kv_length].long()
    visibility = Visibility(
        key_slots=torch.where(key_positions >= 0, mask[:, 0, 1, :kv_length].long(), -1),
        query_slots=mask[:, 0, 2, :q_length].long(),
        window=mask[0, 0, 3, 0].long(),
        explicit=mask[:, 0, _HEADER:, :kv_length] != 0 if mask.shape[2] > _HEADER else None,
    )
    return visibility, key_positions


def _window(mask_function: Callable[..., Any]) -> int | None:
    """0 for a causal mask function, w for a causal window of w, None for anything else.

    transformers hands over closures: the parts of an `and_masks` are read from its cells. While a graph is traced
    cells cannot be read, and the rule is written out as the stock implementation does.
    """
    if mask_function is causal_mask_function:
        return 0
    if torch.compiler.is_compiling():
        return None
    cells = [cell.cell_contents for cell in mask_function.__closure__ or ()]
    if len(cells) != 1 or not isinstance(cells[0], tuple) or len(cells[0]) != 2:
        return None
    overlay, causal = cells[0]
    if causal is not causal_mask_function or getattr(overlay, "__qualname__", "") != _WINDOW_OVERLAY:
        return None
    return overlay.__closure__[0].cell_contents
