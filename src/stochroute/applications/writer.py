"""Texts along given paths: tokens in, the text of each path out, cut where it ends."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from stochroute.generation.decoding import Decoding
from stochroute.generation.padding import pad_left
from stochroute.loading import LoadedModel, check_chat, continuation, token_ids
from stochroute.routed import RoutedModel


@dataclass(frozen=True)
class Written:
    """What a path wrote.

    Attributes:
        text: the continuation without its prompt, up to the token or the string that ended it.
        ended: whether it came to an end by itself, rather than running out of tokens.
    """

    text: str
    ended: bool


class Writer:
    """A routed model with the settings of its decoding."""

    def __init__(
        self,
        loaded: LoadedModel,
        routed: RoutedModel,
        decoding: Decoding,
        new_tokens: int,
        stop: Sequence[str] = (),
        chat: bool = False,
    ):
        """
        Args:
            loaded: the model that `routed` routes, with its tokenizer.
            routed: the routing.
            decoding: how tokens are chosen; without a sampling option, greedily.
            new_tokens: of a text, at most.
            stop: strings that end a text; they do not belong to it.
            chat: whether each prompt is one user's turn, put into the tokenizer's chat template.

        Raises:
            ValueError: a chat template is asked for and there is none, or the texts do not fit the model.
        """
        check_chat(loaded, chat)
        if loaded.context is not None and new_tokens >= loaded.context:
            raise ValueError(
                f"--max-new-tokens {new_tokens}: {loaded.name} holds {loaded.context} tokens, the prompt's among them; "
                f"ask for fewer"
            )
        self.loaded = loaded
        self.routed = routed
        self.new_tokens = new_tokens
        self._stop = tuple(stop)
        self._chat = chat
        self._arguments = decoding.arguments()
        if stop:
            self._arguments |= {"stop_strings": list(stop), "tokenizer": loaded.tokenizer}

    def encode(self, prompt: str, what: str) -> list[int]:
        """The token ids of a prompt; ValueError, which calls it `what`, when it is empty or leaves too little room."""
        ids = token_ids(self.loaded, [prompt], self._chat)[0]
        if not ids:
            raise ValueError(f"{what}: the prompt gives no token in {self.loaded.name}; write more into the template")
        context = self.loaded.context
        if context is not None and len(ids) + self.new_tokens > context:
            raise ValueError(
                f"{what}: a prompt of {len(ids)} tokens and {self.new_tokens} new ones exceed the {context} that "
                f"{self.loaded.name} holds; shorten it, or give a smaller --max-new-tokens"
            )
        return ids

    def write(self, prompts: Sequence[list[int]], paths: Sequence[list[int]]) -> list[list[Written]]:
        """For each prompt one text along each of its paths, all computed together.

        Args:
            prompts: token ids from `encode`.
            paths: path ids, as many for every prompt.
        """
        loaded = self.loaded
        out = self.routed.generate(
            **pad_left(prompts, loaded.pad, loaded.model.device),
            paths=[list(ids) for ids in paths],
            # fixed: another batch shape could decide a tie in float32 another way
            rows_at_once=len(prompts) * len(paths[0]),
            max_new_tokens=self.new_tokens,
            pad_token_id=loaded.pad,
            **self._arguments,
        )
        found: list[list[Written]] = [[] for _ in prompts]
        for new, prompt in zip(out.generated.tolist(), out.prompt_index, strict=True):
            found[prompt].append(self.read(prompts[prompt], new))
        return found

    def read(self, prompt: list[int], new: list[int]) -> Written:
        """The text of new tokens, cut where it ends; what stands behind its end may be anything."""

        def text(count: int) -> str:
            return continuation(self.loaded, prompt, new[:count])

        def stopped(count: int) -> bool:
            return any(string in text(count) for string in self._stop)

        if not stopped(len(new)):
            return Written(text(len(new)), ended=any(token in self.loaded.stops for token in new))
        # the first to be complete ends the text, even where one that is complete later begins before it
        last = text(bisect_left(range(len(new)), True, key=stopped))
        return Written(last[: min(last.find(string) for string in self._stop if string in last)], ended=True)
