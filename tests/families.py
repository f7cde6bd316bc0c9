"""Tiny random models of every family that the test matrix covers.

    model = FAMILIES["llama"].build(torch.float64)

Weights are large enough for logits and attention to be far from flat, windows short enough to bite, and every
bias, norm and sink is off its initial value, so that a mistake anywhere moves the logits.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY = 97
HIDDEN = 32
WINDOW = 5
_HEADS = {"num_attention_heads": 4}
_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "tie_word_embeddings": False,  # a tied random model says its last token again and again
    **_HEADS,
}
_GROUPED = {"num_key_value_heads": 2}
_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
_ALTERNATING = {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "sliding_window": WINDOW}
_NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}


@dataclass(frozen=True)
class Family:
    """One row of the matrix.

    Attributes:
        name: the model type of transformers.
        settings: what its config gets beside the common ones.
        needs_position_ids: True where the stock model is wrong under left padding without them.
        narrow_softmax: True where the stock attention works in float32 even in a float64 model; left padding then
            makes NaN there, because the mask's float64 minimum becomes −∞.
        has_experts: True where it has routers that expert routing knows.
        windowed: True where a layer has a sliding window.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    needs_position_ids: bool = False
    narrow_softmax: bool = False
    has_experts: bool = False
    windowed: bool = False

    def config(self) -> Any:
        """The tiny config of this family."""
        return AutoConfig.for_model(self.name, **{**_COMMON, **self.settings})

    def build(self, dtype: torch.dtype = torch.float64, experts: str = "eager") -> Any:
        """The model in evaluation mode, from a fixed seed; the global random state stays as it was.

        `experts` names transformers' implementation of the experts; its default one knows no float64.
        """
        options: dict[str, Any] = {"experts_implementation": experts} if self.has_experts else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(self.config(), dtype=torch.float64, **options)
        enliven(model)
        return model.to(dtype).eval()


def positions_of(mask: Tensor) -> Tensor:
    """int64 (b, s): the number of real tokens before each token, as transformers' generate counts them."""
    return (mask.cumsum(-1) - 1).clamp_min(0)


def enliven(model: nn.Module) -> None:
    """Redraws every parameter from a fixed stream: matrices with standard deviation 1.5/√hidden, vectors around
    their initial value with 0.3."""
    stream = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=stream, dtype=torch.float64)
            if parameter.dim() > 1:
                parameter.copy_(noise * 1.5 / HIDDEN**0.5)
            else:
                parameter.add_(noise * 0.3)


def _family(name: str, **settings: Any) -> Family:
    flags = {
        key: settings.pop(key)
        for key in ("needs_position_ids", "narrow_softmax", "has_experts", "windowed")
        if key in settings
    }
    return Family(name, settings, **flags)


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _family("llama", **_GROUPED),
        _family("qwen2", **_GROUPED, **_ALTERNATING, use_sliding_window=True, windowed=True),
        _family("qwen3", **_GROUPED, head_dim=8),
        _family("gpt2", **_NO_DROPOUT, n_inner=48, n_positions=128, needs_position_ids=True),
        _family(
            "gemma2",
            narrow_softmax=True,
            **_GROUPED,
            **_ALTERNATING,
            head_dim=8,
            query_pre_attn_scalar=16,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=20.0,
            windowed=True,
        ),
        _family("gemma3_text", **_GROUPED, **_ALTERNATING, head_dim=8, query_pre_attn_scalar=16, windowed=True),
        _family("mistral", **_GROUPED, sliding_window=WINDOW, windowed=True),
        _family("phi", **_GROUPED),
        _family("phi3", **_GROUPED, sliding_window=WINDOW, windowed=True),
        _family("gpt_neox"),
        _family("opt", dropout=0.0, ffn_dim=48, word_embed_proj_dim=HIDDEN),
        _family("mixtral", **_GROUPED, num_local_experts=4, num_experts_per_tok=2, has_experts=True),
        _family(
            "qwen2_moe",
            **_GROUPED,
            **_EXPERTS,
            shared_expert_intermediate_size=24,
            decoder_sparse_step=1,
            has_experts=True,
        ),
        _family("qwen3_moe", **_GROUPED, **_EXPERTS, head_dim=8, mlp_only_layers=[0], has_experts=True),
        _family(
            "gpt_oss",
            **_GROUPED,
            **_ALTERNATING,
            **_ROPE,
            head_dim=8,
            num_local_experts=4,
            num_experts_per_tok=2,
            has_experts=True,
            windowed=True,
        ),
        _family("olmo2", **_GROUPED),
        _family("cohere", **_GROUPED, logit_scale=1.0, use_qk_norm=True),
        _family("starcoder2", **_GROUPED, sliding_window=WINDOW, windowed=True),
        _family("stablelm", **_GROUPED),
        _family("gpt_bigcode", **_NO_DROPOUT, n_inner=48, n_positions=128, needs_position_ids=True),
    )
}

EXPERT_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.has_experts)
