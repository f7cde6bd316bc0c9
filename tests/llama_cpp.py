"""llama.cpp itself, by its C interface: tiny models converted for it, and greedy decoding with a control vector.

convert(model, "model.gguf")
with Llama("model.gguf") as llama:
    llama.greedy([1, 2, 3], new=24, vector=read_vector("path.gguf"))
"""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

bindings = pytest.importorskip("llama_cpp_py_sync._cffi_bindings", reason="pip install llama-cpp-py-sync")
try:
    bindings.get_lib()
except RuntimeError as error:
    pytest.skip(f"llama.cpp cannot be loaded: {error}", allow_module_level=True)

_ARCHITECTURES = {"qwen3": gguf.MODEL_ARCH.QWEN3, "llama": gguf.MODEL_ARCH.LLAMA}


def convert(model: Any, file: Path) -> None:
    """Writes a Llama or Qwen3 of transformers as a float32 GGUF without a vocabulary: tokens go in and out as ids."""
    config, kind = model.config, _ARCHITECTURES[model.config.model_type]
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[kind])
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(kind, config.num_hidden_layers)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if model.config.model_type == "llama" and ("q_proj" in name or "k_proj" in name):
            # llama.cpp turns neighbouring pairs of a head here, transformers its two halves
            tensor = tensor.view(-1, 2, width // 2, config.hidden_size).transpose(1, 2).reshape(tensor.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), tensor.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_vector(file: Path, layers: int) -> np.ndarray:
    """float32 (layers − 1, hidden): a control vector as llama.cpp's loader lays it out, from layer 1 on."""
    tensors = {tensor.name: tensor.data for tensor in gguf.GGUFReader(file).tensors}
    hidden = len(next(iter(tensors.values())))
    rows = np.zeros((layers - 1, hidden), dtype=np.float32)
    for name, data in tensors.items():
        rows[int(name.removeprefix("direction.")) - 1] += data
    return rows


class Llama:
    """A loaded model with one context."""

    def __init__(self, file: Path):
        self._ffi, self._lib = bindings.get_ffi(), bindings.get_lib()
        said: list[str] = []

        @self._ffi.callback("void(enum ggml_log_level, const char *, void *)")
        def listen(level: int, text: Any, unused: Any) -> None:
            said.append(self._ffi.string(text).decode())

        self._listen = listen  # kept alive for as long as the library may call it
        self._lib.llama_log_set(listen, self._ffi.NULL)
        self._lib.llama_backend_init()
        self._model = self._lib.llama_model_load_from_file(str(file).encode(), self._lib.llama_model_default_params())
        assert self._model != self._ffi.NULL, "".join(said[-5:])
        settings = self._lib.llama_context_default_params()
        settings.n_ctx, settings.n_threads, settings.n_threads_batch = 256, 1, 1
        settings.type_k = settings.type_v = self._lib.GGML_TYPE_F32
        settings.flash_attn_type = self._lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._context = self._lib.llama_init_from_model(self._model, settings)
        self._vocabulary = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))

    def __enter__(self) -> "Llama":
        return self

    def __exit__(self, *unused: Any) -> None:
        self._lib.llama_free(self._context)
        self._lib.llama_model_free(self._model)

    def greedy(self, prompt: list[int], new: int, vector: np.ndarray | None) -> tuple[list[int], torch.Tensor]:
        """`new` tokens, and the logits that chose them, float32 (new, vocabulary); the vector acts from the start."""
        self._apply(vector)
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        fed, tokens, logits = prompt, [], []
        for _ in range(new):
            ids = self._ffi.new("llama_token[]", fed)
            assert self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(ids, len(fed))) == 0
            row = self._ffi.buffer(self._lib.llama_get_logits_ith(self._context, -1), 4 * self._vocabulary)
            logits.append(torch.frombuffer(bytearray(row), dtype=torch.float32))
            tokens.append(int(logits[-1].argmax()))
            fed = tokens[-1:]
        return tokens, torch.stack(logits)

    def _apply(self, vector: np.ndarray | None) -> None:
        if vector is None:
            assert self._lib.llama_set_adapter_cvec(self._context, self._ffi.NULL, 0, 0, 0, 0) == 0
            return
        layers, hidden = vector.shape
        data = self._ffi.cast("float *", vector.ctypes.data)
        assert self._lib.llama_set_adapter_cvec(self._context, data, vector.size, hidden, 1, layers) == 0
