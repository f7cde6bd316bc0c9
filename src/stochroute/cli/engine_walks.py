"""Walks paths on vLLM, alone or under Ray: the same rows as on transformers, with the engine's name in the receipt."""

from dataclasses import replace
from pathlib import Path

from stochroute.cli.engines import greedy_receipt, hosted, start_engine
from stochroute.cli.request import Request
from stochroute.cli.rows import Row
from stochroute.cli.walks import Batch, Walks
from stochroute.loading import LoadedModel, continuation


class EngineWalks(Walks):
    """Walks whose texts are written by another engine.

    The model is loaded in transformers first: for the routing's fit, a calibration, and the model's fingerprint in the
    receipts. It is let go before the engine starts.
    """

    def __init__(self, request: Request, prompts: list[str], seed: int | None, loaded: LoadedModel, keep: Path):
        """`keep` is a folder that outlives the walks, for the engine to read its routing from.

        Raises BadInput as `Walks` does, or when the engine cannot do what is asked, or is not installed.
        """
        super().__init__(request, prompts, seed, loaded)
        receipt = greedy_receipt(request.engine, self._routed, self._new_tokens)
        start = hosted(loaded, self._routed, request.routing, keep)
        self._generated = self._routed.config.span == "generated"
        self._routed.detach()
        del self._routed
        self.loaded = replace(loaded, model=None)
        self._writer = start_engine(request.engine, start)
        self._receipt = replace(receipt, engine=self._writer.engine)

    def walk(self, batch: Batch) -> list[Row]:
        """The rows of the batch."""
        index = [prompt for prompt, ids in zip(batch.prompts, batch.paths, strict=True) for _ in ids]
        paths = [path for ids in batch.paths for path in ids]
        prompts = [self._tokens[prompt] for prompt in index]
        starts = [len(prompt) - 1 if self._generated else 0 for prompt in prompts]
        texts = self._writer.write(prompts, paths, starts, self._new_tokens, sorted(self.loaded.stops))
        rows: list[Row] = []
        for prompt, path, start, tokens in zip(index, paths, starts, texts, strict=True):
            text = continuation(self.loaded, self._tokens[prompt], tokens)
            receipt = replace(self._receipt, path=f"{path:016x}", start=start)
            rows.append(Row(self.prompts[prompt], prompt, text, receipt.path, start, self.seed, receipt.to_dict()))
        return rows
