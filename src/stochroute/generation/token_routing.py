"""Token routing: sampling itself as the last site of a path.

The argmax of the warped logits plus Gumbel noise is an exact draw from their softmax (the Gumbel-max trick). With
the noise keyed by path, position and token id, one integer replays a sampled text alone and in any batch.
"""

from typing import Any

from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from stochroute.noise import gumbel_noise, key_words


class TokenRouting(LogitsProcessor):
    """Adds each path's Gumbel noise to the warped logits, as the last processor before an argmax.

    Attributes:
        unperturbed: the warped logits of every step before the noise, float32 (rows, vocabulary), when they are kept.
    """

    def __init__(self, paths: list[int], prompt_lengths: Tensor, keep_scores: bool, streamer: Any = None):
        """prompt_lengths: int64 (rows,), real tokens of each row's prompt, on the device of the scores.

        The streamer is handed on, because transformers hands none to a custom decoding method.
        """
        self._keys = key_words(paths, prompt_lengths.device)
        self._prompt_lengths = prompt_lengths
        self._keep_scores = keep_scores
        self._streamer = streamer
        self._prompt_width: int | None = None
        self.unperturbed: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._prompt_width is None:
            self._prompt_width = input_ids.shape[1]
        position = self._prompt_lengths + (input_ids.shape[1] - self._prompt_width)
        if self._keep_scores:
            self.unperturbed.append(scores)
        return gumbel_noise(self._keys, scores.shape[-1], position).to(scores.device).add_(scores)

    def decode(
        self,
        model: Any,
        input_ids: Tensor,
        logits_processor: LogitsProcessorList,
        stopping_criteria: Any,
        generation_config: Any,
        **model_kwargs: Any,
    ) -> Any:
        """A decoding method for `generate(custom_generate=…)`.

        transformers has prepared processors and warpers for sampling; its own greedy search then runs on them with
        the noise at their end, because its multinomial would read and move the global generator.
        """
        logits_processor.append(self)
        generation_config.do_sample = False
        output = type(model)._sample(
            model,
            input_ids,
            logits_processor=logits_processor,
            stopping_criteria=stopping_criteria,
            generation_config=generation_config,
            streamer=self._streamer,
            **model_kwargs,
        )
        if not isinstance(output, Tensor) and output.scores is not None:
            output.scores = tuple(self.unperturbed[: len(output.scores)])
        return output
