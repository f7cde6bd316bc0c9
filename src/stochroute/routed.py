"""The public face: a model with paths."""

# pyright: reportUnknownMemberType=false
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils.hub import PushToHubMixin

from stochroute.config import DEFAULT_BUDGET, Quantity, RoutingConfig, Split
from stochroute.generation.generate import generate
from stochroute.generation.outputs import RoutedOutput
from stochroute.generation.request import PathId
from stochroute.routing.attached import AttachedRouting
from stochroute.routing.explanation import Explanation, explain
from stochroute.storage import find_folder, read_routing, write_routing

if TYPE_CHECKING:
    from stochroute.calibration import Report


class RoutedModel(AttachedRouting, PushToHubMixin):
    """A causal language model in which every inference may walk its own, replayable path.

        routed = sr.route(model)
        out = routed.generate(**inputs, paths=8, seed=7, max_new_tokens=64)

    It owns the noise parameters and holds the model, which it hooks in place: the model stays an ordinary
    transformers model and, outside of `follow` and `generate`, the original one bit for bit.
    """

    def generate(
        self,
        inputs: Tensor | None = None,
        *,
        paths: int | Sequence[PathId] | Sequence[Sequence[PathId]] = 1,
        seed: int | None = None,
        spread: bool = False,
        rows_at_once: int | None = None,
        **arguments: Any,
    ) -> RoutedOutput:
        """Writes texts along paths, through transformers' own generate.

            out = routed.generate(**inputs, paths=8, seed=7, max_new_tokens=64)
            routed.generate(**inputs, paths=[out.paths[3]], max_new_tokens=64)  # that text again

        With `do_sample=True` the draws come from the path as well (token routing), so a sampled text replays too.
        `spread=True` shares the model's distribution out among the paths of a prompt, so that they say more different
        things while each is distributed as before (`generation.spreading`).
        With span "generated" each prompt is computed once, clean, and its cache spread over its paths.

        Args:
            inputs: int64 (prompts, width) token ids, padded at the left; or pass `input_ids=` or `inputs_embeds=`.
            paths: how many for each prompt, or the ids to walk: for one prompt a list; for several a flat list with
                one a row, or a list for each. A receipt in an id's place is compared with the present
                circumstances, and what differs is warned about (ReplayMismatch).
            seed: in [0, 2⁶⁴), for a number of paths; None has one drawn, and reported in the result.
            spread: whether sampled texts of one prompt are spread evenly; the ids are then those of
                `derive_paths(…, spread=True)`.
            rows_at_once: rows to compute together, at most; None fits them to half of the free memory. It changes no
                text.
            **arguments: as in transformers' generate. Beam search walks one path a prompt.

        Raises:
            ValueError: bad paths or seed, an empty or too long prompt, padding at the right, num_return_sequences,
                beam sampling, sampled assisted decoding, several paths with nothing to tell them apart.
        """
        return generate(self, inputs, paths, seed, spread, rows_at_once, arguments)

    def forward(
        self,
        *args: Any,
        paths: Tensor | Sequence[int | str | None] | None = None,
        start: Tensor | int | Sequence[int] = 0,
        **kwargs: Any,
    ) -> Any:
        """The model's forward along the given paths, one a batch row; without paths, the original model's.

        Args:
            paths: ids, or an int64 tensor (b,) that holds them modulo 2⁶⁴ (as a batch column does).
            start: the first position that carries noise, one for all or one a row.
        """
        if paths is None:
            return self.model(*args, **kwargs)
        if isinstance(paths, Tensor):
            paths = [p % (1 << 64) for p in cast(list[int], paths.tolist())]
        if isinstance(start, Tensor):
            start = cast(list[int], start.tolist())
        with self.follow(paths, start):
            return self.model(*args, **kwargs)

    def calibrate(
        self,
        prompts: Sequence[str | Sequence[int] | Tensor],
        *,
        budget: float = DEFAULT_BUDGET,
        tokenizer: Any = None,
        quantity: Quantity = "divergence",
        split: Split = "even",
        pairs: int | None = None,
        seed: int = 0,
        on_evaluation: Callable[[int, float], None] | None = None,
    ) -> "Report":
        """Finds the strengths at which the noise does as much as the budget says, and leaves them in the routing.

            report = routed.calibrate(prompts, budget=0.05, tokenizer=tokenizer)
            print(report)

        What the noise does is measured at each noised position of (prompt, path) pairs, teacher-forced. With span
        "generated" the first half of each prompt stays clean and the second half stands for the text to come. All
        strengths keep their proportions (those given, or the kinds' defaults for "auto") and are multiplied by one
        factor; a strength of 0 stays 0. They are rounded to four digits. `save_pretrained` keeps them, receipts name
        the new routing, and nothing is ever calibrated again by itself.

        Args:
            prompts: at least two texts or rows of token ids, better 32 and more of the kind that will be written.
            budget: in nats a noised position.
            tokenizer: of the model; not needed for token ids.
            quantity: "divergence" for KL(routed ‖ clean), "transmission" for I(next token; path), which is never
                more.
            split: "even" keeps the proportions; "sensitivity" changes them so that every layer of every kind, alone,
                contributes the same.
            pairs: how many at least; each prompt gets the same number of paths, two or more. None takes 256, and then
                more, up to 8,192, until the interval is ± 5 % or the prompts leave more open than the paths.
            seed: of the paths.
            on_evaluation: called with (number of measurements so far, nats) after each.

        Raises:
            ValueError: a budget of 0 or less, or out of reach (the message says what is reached); fewer than two
                prompts, or one of fewer than two tokens or longer than the model holds; every kind off; logits that
                are not finite. The strengths stay as they were.
        """
        from stochroute.calibration import calibrate

        return calibrate(self, prompts, budget, tokenizer, quantity, split, pairs, seed, on_evaluation)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        push_to_hub: bool = False,
        max_shard_size: int | str | None = None,
        **push_arguments: Any,
    ) -> None:
        """Writes the routing (not the model) as routing.json and routing.safetensors, both or neither.

        Args:
            save_directory: the folder, made where it is missing.
            push_to_hub: whether to push the routing to the hub as well, under `repo_id=` or the folder's name.
            max_shard_size: taken because transformers' push_to_hub passes it; a routing is a single file.
            **push_arguments: what transformers' push_to_hub takes.

        Raises:
            OSError: the folder cannot be written; an earlier routing in it stays.
            TypeError: arguments of push_to_hub come without it.
        """
        if push_arguments and not push_to_hub:
            raise TypeError(
                f"save_pretrained got {', '.join(push_arguments)}, which has no effect: set push_to_hub=True"
            )
        folder = Path(save_directory)
        write_routing(folder, self.config, self.noise_parameters(), self.model)
        if push_to_hub:
            self.push_to_hub(push_arguments.pop("repo_id", folder.name), **push_arguments)

    def explain(self) -> Explanation:
        """Which implementation each kind of noise runs on, for each device, and why; `print` it for a table."""
        return explain(self)

    @classmethod
    def from_pretrained(
        cls, model: PreTrainedModel, folder: str | os.PathLike[str], sites: Mapping[int, str] | None = None
    ) -> "RoutedModel":
        """The model with the routing that `save_pretrained` wrote.

        Args:
            model: the model, already loaded.
            folder: a folder, the name of a repository on the hub, or "embedded" for the paths that the embedded model
                was trained with.
            sites: as in `route`.

        Raises:
            ValueError: the files are corrupt, or the routing does not fit the model; the model stays as it was.
            OSError: there are no such files.
        """
        config, parameters = read_routing(find_folder(folder), model)
        routed = cls(model, config, sites)
        own = routed.noise_parameters()
        if own.keys() != parameters.keys() or any(own[n].shape != parameters[n].shape for n in own):
            routed.detach()
            expected = {n: tuple(t.shape) for n, t in own.items()}
            found = {n: tuple(t.shape) for n, t in parameters.items()}
            raise ValueError(f"the routing in {folder} holds the parameters {found}, this model needs {expected}")
        for name, parameter in own.items():
            parameter.copy_(parameters[name])
        return routed


def route(
    model: PreTrainedModel,
    config: RoutingConfig | None = None,
    *,
    sites: Mapping[int, str] | None = None,
    attention_kernel: str = "auto",
) -> RoutedModel:
    """Gives the model paths.

        routed = sr.route(model)

    Args:
        model: any transformers causal language model, already loaded; it is hooked in place.
        config: None takes structural noise, one draw a path shared by the upper third of the layers.
        sites: layer index -> name of the module whose output structural noise is added to, where the rule that
            finds feed-forward blocks does not know the architecture.
        attention_kernel: "auto" takes the fastest that runs on the device and dtype, see `explain`; "fused" (compiled
            for CPUs, Triton for CUDA), "blocked" (torch) and "reference" (the formula written out) name one.

    Raises:
        ValueError: the model cannot be routed (unknown architecture, no or several candidates for a site,
            encoder-decoder, vision-language, attention code of its own, no experts), or is routed already; the
            model stays as it was.
    """
    return RoutedModel(model, RoutingConfig() if config is None else config, sites, attention_kernel)
