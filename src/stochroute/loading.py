"""Loads a model with its tokenizer: the embedded one, a folder, or a name on the Hugging Face Hub; encodes, decodes."""

from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any, cast

from stochroute.embedded import EMBEDDED
from stochroute.errors import one_line

# The embedded model continues stories and knows no turns: what was said is the beginning of its story.
STORY_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}{% endfor %}"


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model, ready to generate.

    Attributes:
        name: as the user gave it, or "the embedded model".
        model: a transformers causal language model in eval mode.
        tokenizer: its tokenizer.
        embedded: whether it is the model of the story world, whose texts the world's checker can read.
        context: tokens it can hold, None when its config does not say.
        stops: token ids that end a text.
        pad: token id that fills up shorter rows; never read, since the mask covers it.
    """

    name: str
    model: Any
    tokenizer: Any
    embedded: bool
    context: int | None
    stops: frozenset[int]
    pad: int

    @property
    def short_name(self) -> str:
        """What clients of a server call it, if they are told nothing else."""
        return EMBEDDED if self.embedded else Path(self.name).name


def check_model_name(name: str | None, option: str = "--model") -> None:
    """ValueError for a folder that is not there: found out before torch is imported."""
    if name is None:
        return
    looks_like_a_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name.strip()
    if looks_like_a_path and not Path(name).is_dir():
        raise ValueError(f"{option} {name}: no such folder; name a folder with a transformers model, or one on the Hub")
    # the latter is an adapter, from which transformers finds the model that it belongs to
    if Path(name).is_dir() and not any(
        (Path(name) / file).is_file() for file in ("config.json", "adapter_config.json")
    ):
        raise ValueError(f"{option} {name}: no config.json in this folder; name one that save_pretrained has written")


def load_model(name: str | None, device: str, dtype: str) -> LoadedModel:
    """The model on its device, and its tokenizer.

    Args:
        name: a folder or a name on the Hub; None for the embedded model.
        device: as torch writes it, or "auto" for a GPU where there is one.
        dtype: a torch dtype's name; "auto" keeps the dtype of the weights.

    Raises:
        ValueError: there is no such model, it cannot be read, or it is no causal language model.
    """
    import torch
    from transformers.utils import logging

    # what these packages log while they load is about their own work; what matters here is raised
    getLogger("torch").setLevel("ERROR")
    getLogger("torchao").setLevel("ERROR")
    logging.set_verbosity_error()
    logging.disable_progress_bar()

    place = _device(device)
    if name is None:
        from stochroute import embedded

        model, tokenizer = cast(tuple[Any, Any], embedded.load())
        if dtype != "auto":
            model = model.to(getattr(torch, dtype))
    else:
        model, tokenizer = _from_pretrained(name, dtype)
    model = model.to(place).eval()
    stops = _ids(model.generation_config.eos_token_id) or _ids(tokenizer.eos_token_id)
    pad = next((i for i in (tokenizer.pad_token_id, *sorted(stops)) if i is not None), 0)
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    shown = "the embedded model" if name is None else name
    return LoadedModel(shown, model, tokenizer, name is None, context, frozenset(stops), pad)


def check_chat(loaded: LoadedModel, chat: bool) -> None:
    """ValueError where a chat template is asked for and there is none."""
    if chat and not loaded.tokenizer.chat_template:
        raise ValueError(f"--chat: the tokenizer of {loaded.name} has no chat template; leave --chat out")


def token_ids(loaded: LoadedModel, prompts: list[str], chat: bool) -> list[list[int]]:
    """The token ids of each prompt, however many there are; see `encode`."""
    check_chat(loaded, chat)
    texts = prompts
    if chat:
        texts = [
            loaded.tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
            for prompt in prompts
        ]
    # a chat template writes its own beginning-of-text token
    return [list(ids) for ids in loaded.tokenizer(texts, add_special_tokens=not chat)["input_ids"]]


def encode(loaded: LoadedModel, prompts: list[str], chat: bool) -> list[list[int]]:
    """The token ids of each prompt.

    Args:
        chat: whether each prompt is one user's turn, put into the tokenizer's chat template.

    Raises:
        ValueError: a prompt gives no token, does not leave room for a new one, or there is no chat template.
    """
    rows = token_ids(loaded, prompts, chat)
    for number, (ids, prompt) in enumerate(zip(rows, prompts, strict=True), 1):
        shown = prompt if len(prompt) <= 40 else prompt[:39] + "…"
        if not ids:
            raise ValueError(f"prompt {number} ({shown!r}) gives no token in {loaded.name}; write more")
        if loaded.context is not None and len(ids) >= loaded.context:
            raise ValueError(
                f"prompt {number} ({shown!r}) has {len(ids)} tokens, but {loaded.name} holds {loaded.context} "
                "with the text to come; shorten it"
            )
    return rows


def continuation(loaded: LoadedModel, prompt_ids: list[int], new_ids: list[int]) -> str:
    """The text of the new tokens up to the first that stops, with the white space that joins it to its prompt."""
    kept: list[int] = []
    for token in new_ids:
        if token in loaded.stops:
            break
        kept.append(token)
    # decoded alone, many tokenizers drop the white space before the first word
    before: str = loaded.tokenizer.decode(prompt_ids, skip_special_tokens=True)
    whole: str = loaded.tokenizer.decode(prompt_ids + kept, skip_special_tokens=True)
    if whole.startswith(before):
        return whole[len(before) :]
    return loaded.tokenizer.decode(kept, skip_special_tokens=True)


def _from_pretrained(name: str, dtype: str) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # transformers' own annotations say too little here to be checked against
    auto_model, auto_tokenizer = cast(Any, AutoModelForCausalLM), cast(Any, AutoTokenizer)
    source = name if Path(name).is_dir() else _on_the_hub(name)
    try:
        model = auto_model.from_pretrained(source, dtype=dtype)
        tokenizer = auto_tokenizer.from_pretrained(source)
    # whatever these packages raise here is about the files that the user named
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise ValueError(
            f"--model {name}: {one_line(error)}; name a transformers causal language model in a folder or on the Hub"
        ) from error
    return model, tokenizer


def _on_the_hub(name: str) -> str:
    """The name itself when the Hub answers that it has the model, else the folder of an earlier download.

    Asked once and first, because loading retries for a minute where there is no network.
    """
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        huggingface_hub.HfApi().model_info(name, timeout=10)
        return name
    except (GatedRepoError, HFValidationError, RepositoryNotFoundError) as error:
        raise ValueError(f"--model {name}: no folder here, and on the Hub: {one_line(error)}") from error
    except Exception:  # offline in one of many ways, each with a class of its own
        pass
    try:
        return cast(Any, huggingface_hub).snapshot_download(name, local_files_only=True)
    except OSError as error:
        raise ValueError(
            f"--model {name}: no folder here, and the Hub cannot be reached; name a folder, or go online"
        ) from error


def _device(name: str) -> Any:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    # torch raises an AssertionError for a GPU that it was not built for
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(
            f"--device {name}: torch cannot use it here; write cpu, cuda or cuda:1, for example"
        ) from error
    return device


def _ids(value: int | list[int] | None) -> set[int]:
    if value is None:
        return set()
    return {value} if isinstance(value, int) else set(value)
