"""What the embedded model learns from: texts of the story world in a mixture, as tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast

from stochroute.measuring.nats import IGNORED
from stochroute.world import chinese, draw_text

SPECIAL = PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
PAD_ID, BOS_ID, EOS_ID = range(3)  # special tokens come first in the vocabulary
VOCABULARY = 2560  # upper bound; merging may stop earlier, when every word is one token
TOKENIZER_TEXTS = 12_000  # enough to see every word of the world
CONTEXT = 512  # positions; a text needs fewer than 200

# The mixture, in twentieths: English stories are the default prompt, so they get the most.
MIXTURE = (
    *[("en", "story")] * 10,
    *[("zh", "story")] * 4,
    *[("en", "dialogue")] * 3,
    *[("zh", "dialogue")] * 3,
)


def text_at(seed: int, index: int) -> str:
    """The index-th training text of this seed; its language and form follow `MIXTURE`."""
    language, form = MIXTURE[index % len(MIXTURE)]
    return draw_text(seed, index, language, form)


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `VOCABULARY` tokens, so that nothing is unknown.

    Names, English words and Chinese characters are one token each; so are Chinese animals.
    """
    words = [*chinese.NAMES.values(), *(words.split("|")[1] for words in chinese.KINDS.values())]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{Han}，。：；？！“”]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(words),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text_at(seed, index) for index in range(TOKENIZER_TEXTS)), trainer)
    tokenizer.add_tokens(words)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, BOS_ID)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


class WorldTexts(Dataset):
    """Training texts of a seed, told when asked for: examples as `stochroute.training` takes them.

    `prompted` texts begin with a prompt that is not learned, of the first token as often as of many: the logarithm of
    its length is uniform.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, numbers: range, prompted: bool = False):
        self.tokenizer, self.seed, self.numbers, self.prompted = tokenizer, seed, numbers, prompted

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = self.numbers[index]
        ids = [*self.tokenizer(text_at(self.seed, number))["input_ids"], EOS_ID]
        share = np.random.default_rng((self.seed, number)).random() if self.prompted else 0.0
        prompt = int(len(ids) ** share)
        return {"input_ids": ids, "labels": [IGNORED] * prompt + ids[prompt:], "example": number}
