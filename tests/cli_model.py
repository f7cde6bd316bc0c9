"""A tiny random model in a folder, for the tests of the command line: nothing to download, instant to run."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 64


def save_tokenizer(folder: Path) -> int:
    """Writes a byte-level tokenizer into the folder, and returns the size of its vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<s>": 0, "</s>": 1} | {character: i + 2 for i, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    fast.save_pretrained(folder)
    return len(vocabulary)


def save_tiny_model(folder: Path, layers: int = 3) -> str:
    """Writes a byte-level Llama of `layers` layers into the folder and returns the folder's name."""
    config = LlamaConfig(
        vocab_size=save_tokenizer(folder),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.2,  # with 0.02 no noise could do as much as the default budget says
        bos_token_id=0,
        eos_token_id=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
