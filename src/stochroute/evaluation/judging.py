"""Models that judge: the likelihood of a text under a language model that did not write it, and rewards."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from stochroute.generation.receipts import fingerprint
from stochroute.loading import LoadedModel
from stochroute.measuring.nats import IGNORED, row_nats


class Judge:
    """A causal language model that reads texts which another one wrote.

    Its tokenizer may be another than the generator's, because likelihood is counted in nats per byte of the text.
    """

    def __init__(self, loaded: LoadedModel, generator: Any = None, batch: int = 32):
        """
        Args:
            loaded: the judge.
            generator: the model that the judge must not be; None where it may be any.
            batch: texts read at once.

        Raises:
            ValueError: the judge is the generator itself: by fingerprint, wherever it was loaded from.
        """
        if generator is not None and fingerprint(loaded.model) == fingerprint(generator):
            raise ValueError(
                f"judge {loaded.name} is the generator itself, which likes whatever it does by habit: "
                f"name another model"
            )
        self.name = loaded.name
        self.fingerprint = fingerprint(loaded.model)
        self._loaded = loaded
        self._batch = batch

    def nats(self, prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """−ln p(text | prompt) of each pair: float64 (pairs,), 0 for an empty text.

        The tokens after the longest common beginning of prompt and prompt + text are the text's. A prompt too long for
        the judge loses its beginning.

        Raises:
            ValueError: a text has characters that the judge's tokenizer does not know, or is longer than its context.
        """
        found = np.zeros(len(texts))
        rows = [self._encode(prompt, text) for prompt, text in zip(prompts, texts, strict=True)]
        order = sorted((i for i, text in enumerate(texts) if text), key=lambda i: len(rows[i][0]))
        for first in range(0, len(order), self._batch):
            chunk = order[first : first + self._batch]
            found[chunk] = self._row_nats([rows[i] for i in chunk])
        return found

    @torch.no_grad()
    def features(self, texts: Sequence[str]) -> np.ndarray:
        """The last layer's hidden state at the last token of each text: float32 (texts, width), as MAUVE wants them."""
        found = []
        for first in range(0, len(texts), self._batch):
            rows = [self._encode("", text)[0] for text in texts[first : first + self._batch]]
            ids, mask = self._padded(rows)
            out = self._loaded.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
            last = mask.sum(1) - 1
            found.append(out.hidden_states[-1][torch.arange(len(rows)), last].float().cpu().numpy())
        return np.concatenate(found)

    @torch.no_grad()
    def _row_nats(self, rows: list[tuple[list[int], int]]) -> np.ndarray:
        ids, mask = self._padded([row for row, _ in rows])
        labels = ids.masked_fill(mask == 0, IGNORED)
        for row, (_, prompt_length) in enumerate(rows):
            labels[row, :prompt_length] = IGNORED
        logits = self._loaded.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return row_nats(logits, labels).double().cpu().numpy()

    def _padded(self, rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded at the right, where causal attention does not look; positions then need no correction."""
        width, device = max(map(len, rows)), self._loaded.model.device
        ids = torch.tensor([row + [self._loaded.pad] * (width - len(row)) for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        return ids, mask

    def _encode(self, prompt: str, text: str) -> tuple[list[int], int]:
        tokenizer, context = self._loaded.tokenizer, self._loaded.context
        before, whole = tokenizer(prompt)["input_ids"], tokenizer(prompt + text)["input_ids"]
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown in whole[len(before) :]:
            raise ValueError(
                f"judge {self.name}: its tokenizer has no token for a character of {text[:60]!r}, so that "
                f"it would judge another text: name a judge that knows the language"
            )
        same = next(
            (i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), min(len(before), len(whole))
        )
        same = max(same, 1)  # the first token has nothing that predicts it
        if context is not None and len(whole) > context:
            surplus = len(whole) - context
            if surplus >= same:
                raise ValueError(
                    f"judge {self.name} holds {context} tokens, a text has {len(whole) - same}: "
                    f"name a judge with more context, or write fewer new tokens"
                )
            whole, same = whole[surplus:], same - surplus
        return whole, same


class Reward:
    """A sequence classifier whose only logit says how good an answer to a prompt is."""

    def __init__(self, name: str, model: Any, tokenizer: Any, batch: int = 16):
        """Raises ValueError when the model gives more than one number."""
        if model.config.num_labels != 1:
            raise ValueError(
                f"reward model {name} gives {model.config.num_labels} numbers a text: name one with a single output"
            )
        self.name = name
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch = batch

    @torch.no_grad()
    def rewards(self, prompts: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """The reward of each text after its prompt, float64 (texts,); in a chat template where there is one."""
        found: list[float] = []
        for prompt, text in zip(prompts, texts, strict=True):
            if self._tokenizer.chat_template:
                turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
                batch = self._tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
            else:
                batch = self._tokenizer(prompt, text, return_tensors="pt", truncation=True)
            found.append(float(self._model(**batch.to(self._model.device)).logits[0, 0]))
        return np.array(found)
