"""Writes what a plan asks for: as many texts from every setting and prompt, each a pure function of the seed.

Sample j of prompt p walks path `derive_paths(seed, n, prompt=p)[j]` under every setting (its spread form where
tokens or noise are spread), so that arms are compared on common random numbers. The rows computed together are fixed
by the plan, not by where a run was interrupted: in float32 another batch can decide a tie another way.
"""

from collections.abc import Callable

from stochroute.evaluation.arms import Setting
from stochroute.evaluation.run import SAMPLE_FILE, Run, Sample
from stochroute.evaluation.searches import write_without_paths
from stochroute.generation.padding import pad_left
from stochroute.loading import LoadedModel, continuation
from stochroute.paths import derive_paths, format_path
from stochroute.routed import RoutedModel, route


class Sampler:
    """The model that writes, with everything that is the same for all settings."""

    def __init__(
        self, loaded: LoadedModel, tokens: list[list[int]], samples: int, new_tokens: int, seed: int, batch: int
    ):
        """tokens: ids of each prompt; batch: rows computed at once, at least one prompt's samples."""
        self._loaded = loaded
        self._tokens = tokens
        self._samples = samples
        self._new_tokens = new_tokens
        self._seed = seed
        each = max(1, batch // samples)
        self._blocks = [range(first, min(first + each, len(tokens))) for first in range(0, len(tokens), each)]

    def write_missing(self, run: Run, settings: list[Setting], advance: Callable[[int], None]) -> None:
        """Appends every sample that the run does not hold yet, block by block.

        Raises:
            ValueError: the run holds samples that this plan would not write there.
        """
        there = {(s.setting, s.prompt, s.sample) for s in run.samples()}
        named = {s.name for s in settings}
        strange = next((s for s, p, j in there if s not in named or p >= len(self._tokens) or j >= self._samples), None)
        if strange is not None:
            raise ValueError(
                f"{run.folder / SAMPLE_FILE} holds samples of {strange!r}, which this run does not have: "
                f"choose another folder"
            )
        advance(len(there))
        for setting in settings:
            missing = [
                block
                for block in self._blocks
                if any((setting.name, p, j) not in there for p in block for j in range(self._samples))
            ]
            if not missing:
                continue
            routed = route(self._loaded.model, setting.routing) if setting.replays else None
            try:
                for block in missing:
                    rows = [
                        s for s in self._write(setting, block, routed) if (s.setting, s.prompt, s.sample) not in there
                    ]
                    run.append(SAMPLE_FILE, rows)
                    advance(len(rows))
            finally:
                if routed is not None:
                    routed.detach()

    def write_first(self, setting: Setting) -> list[Sample]:
        """The first prompt's samples, kept nowhere."""
        return self._alone(setting, range(1))

    def plain_texts(self, setting: Setting) -> tuple[str, ...]:
        """One text a prompt, kept nowhere."""
        return tuple(s.text for block in self._blocks for s in self._alone(setting, block) if s.sample == 0)

    def _alone(self, setting: Setting, block: range) -> list[Sample]:
        routed = route(self._loaded.model, setting.routing) if setting.replays else None
        try:
            return self._write(setting, block, routed)
        finally:
            if routed is not None:
                routed.detach()

    def _write(self, setting: Setting, block: range, routed: RoutedModel | None) -> list[Sample]:
        loaded = self._loaded
        tokens = [self._tokens[p] for p in block]
        width = max(map(len, tokens))
        inputs = pad_left(tokens, loaded.pad, loaded.model.device)
        paths: list[str | None] = [None] * (len(tokens) * self._samples)
        if setting.without_paths is not None:
            # a seed of its own for each block, so that dropout masks do not depend on what was done before
            seed = derive_paths(self._seed, 1, prompt=block.start)[0]
            sequences = write_without_paths(
                loaded.model, inputs, self._samples, setting.without_paths, self._new_tokens, loaded.pad, seed
            )
        else:
            assert routed is not None, "a setting without a search or dropout is routed"
            spread = setting.decoding.spread or routed.config.spreads
            ids = [derive_paths(self._seed, self._samples, prompt=p, spread=spread) for p in block]
            out = routed.generate(
                **inputs,
                paths=ids,
                max_new_tokens=self._new_tokens,
                pad_token_id=loaded.pad,
                rows_at_once=len(tokens) * self._samples,
                **setting.decoding.arguments(),
            )
            sequences = out.sequences
            paths = [format_path(path) for path in out.paths]
        generated: list[list[int]] = sequences[:, width:].tolist()
        return [
            self._sample(setting, block[row // self._samples], row % self._samples, paths[row], new)
            for row, new in enumerate(generated)
        ]

    def _sample(self, setting: Setting, prompt: int, number: int, path: str | None, new: list[int]) -> Sample:
        length = next((i for i, token in enumerate(new) if token in self._loaded.stops), len(new))
        text = continuation(self._loaded, self._tokens[prompt], new)
        return Sample(setting.name, prompt, number, path, length, length < len(new), text)
