"""A small model that writes quatrains of five characters, trained here on verses made here."""

import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SCENES = ["青山", "白云", "明月", "春风", "秋雨", "清泉", "落花", "远帆", "孤舟", "新竹"]
DEEDS = ["入", "过", "照", "满", "绕", "映"]
PLACES = ["小楼", "空林", "江岸", "石径", "寒窗", "古寺", "平湖", "柴门", "长亭", "野桥"]
SIGNS = "，。，。"


def quatrain(draw: random.Random) -> str:
    """Four lines of five characters, such as 明月照江岸."""
    lines = (draw.choice(SCENES) + draw.choice(DEEDS) + draw.choice(PLACES) for _ in range(4))
    return "".join(line + sign for line, sign in zip(lines, SIGNS, strict=True))


def save_poet(folder: Path, steps: int = 120) -> str:
    """Trains the model, writes it into the folder and returns the folder's name."""
    characters = sorted(set("".join([*SCENES, *DEEDS, *PLACES])) | set(SIGNS) | set("春眠不觉晓"))
    vocabulary = {"<s>": 0, "</s>": 1} | {character: i + 2 for i, character in enumerate(characters)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    draw = random.Random(0)
    texts = [quatrain(draw) for _ in range(400)]
    rows = torch.tensor([[*(vocabulary[c] for c in text), 1] for text in texts])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
        for _ in range(steps):
            batch = rows[torch.randint(len(rows), (32,))]
            loss = model(batch, labels=batch).loss
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    model.eval().save_pretrained(folder)
    return str(folder)
