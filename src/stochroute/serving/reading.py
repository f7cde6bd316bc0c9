"""From a request of the protocol to work for the engine: tokens, paths, noise, and everything that can be wrong."""

from dataclasses import dataclass
from typing import Any

import jinja2

from stochroute.paths import derive_paths, draw_seed, format_path, parse_path
from stochroute.serving.engine import Engine
from stochroute.serving.errors import ApiError, invalid
from stochroute.serving.jobs import Work
from stochroute.serving.noise import Noise
from stochroute.serving.protocol import ChatRequest, CommonFields, CompletionRequest, FieldState, ModelCard
from stochroute.serving.sampling import Sampling

_DEFAULT_TOKENS = 16  # of /v1/completions, as OpenAI has it
_DEFAULT_CHAT_TOKENS = 4096  # where the model's config does not say what it can hold
_LEAST_TEMPERATURE = 0.01  # below it float32 logits overflow, and nothing but the likeliest token is left


@dataclass(frozen=True)
class Asked:
    """A request that has been read.

    Attributes:
        work: what it asks of the engine.
        seed: what its paths were derived from, None when it named them.
    """

    work: Work
    seed: int | None


def read_completion(engine: Engine, request: CompletionRequest) -> Asked:
    """The work of a request to /v1/completions; ApiError when it cannot be done."""
    prompt = request.prompt
    many = isinstance(prompt, list) and not isinstance(prompt[0], int)
    prompts: list[Any] = list(prompt) if many else [prompt]
    ids = [_prompt_ids(engine, entry, f"prompt[{i}]" if many else "prompt") for i, entry in enumerate(prompts)]
    return _read(engine, request, ids, request.max_tokens or _DEFAULT_TOKENS, "max_tokens", request.logprobs)


def read_chat(engine: Engine, request: ChatRequest) -> Asked:
    """The work of a request to /v1/chat/completions; ApiError when it cannot be done."""
    if request.max_tokens is not None and request.max_completion_tokens is not None:
        raise invalid("max_tokens", "max_tokens and max_completion_tokens are two names of one limit: leave one out")
    if request.top_logprobs and not request.logprobs:
        raise invalid("top_logprobs", f"top_logprobs={request.top_logprobs} has no effect without logprobs: true")
    tokenizer = engine.reading_tokenizer
    if not tokenizer.chat_template:
        raise invalid("messages", "this model has no chat template: use /v1/completions, or start with --chat-template")
    turns = [
        {"role": _role(message.role), "content": message.text} | ({"name": message.name} if message.name else {})
        for message in request.messages
    ]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:  # templates raise it for conversations that they do not allow
        raise invalid("messages", f"the model's chat template refuses these messages: {error}") from error
    ids = _tokens(engine, text, "messages", special=False)
    most = request.max_completion_tokens or request.max_tokens
    name = "max_tokens" if request.max_completion_tokens is None else "max_completion_tokens"
    top = (request.top_logprobs or 0) if request.logprobs else None
    return _read(engine, request, [ids], most, name, top)


def _read(
    engine: Engine, request: CommonFields, prompts: list[tuple[int, ...]], most: int | None, name: str, top: int | None
) -> Asked:
    if request.model != engine.served.name:
        raise ApiError(
            404, f"model {request.model!r} is not served here: name {engine.served.name!r}", "model_not_found", "model"
        )
    if request.stream_options is not None and not request.stream:
        raise invalid("stream_options", "stream_options has no effect without stream: true")
    sampling = _sampling(request)
    noise = _noise(engine, request)
    variants = engine.scheduler.variants
    spread = sampling.spread or variants.config(noise).spreads
    paths, seed = _paths(engine, request, len(prompts), spread)
    if len(paths[0]) > 1 and sampling.temperature == 0 and variants.is_clean(noise):
        raise invalid(
            "paths" if request.paths else "n",
            f"{len(paths[0])} texts of one prompt would all be the same: with temperature 0 and no noise nothing tells "
            f"them apart",
        )
    stops = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    work = Work(
        prompts=prompts,
        paths=paths,
        noise=noise,
        all_noised=variants.span(noise) == "all" and not variants.is_clean(noise),
        sampling=sampling,
        max_tokens=[_room(engine, len(prompt), most, name) for prompt in prompts],
        stops=stops,
        top_logprobs=top,
        streams=bool(request.stream),
    )
    return Asked(work, seed)


def _sampling(request: CommonFields) -> Sampling:
    temperature = 1.0 if request.temperature is None else request.temperature
    if 0 < temperature < _LEAST_TEMPERATURE:
        raise invalid("temperature", f"temperature={temperature} leaves only the likeliest token: write 0")
    if temperature == 0:
        for field in ("top_p", "top_k", "min_p"):
            if getattr(request, field) not in (None, 1.0):
                raise invalid(field, f"{field}={getattr(request, field)} has no effect at temperature 0: leave it out")
        if request.spread:
            raise invalid("spread", "spread has no effect at temperature 0: leave it out")
    top_p = 1.0 if request.top_p is None else request.top_p
    return Sampling(temperature, request.top_k, top_p, request.min_p or None, bool(request.spread))


def _noise(engine: Engine, request: CommonFields) -> Noise:
    variants = engine.scheduler.variants
    for field in ("strength", "budget", "hold", "span"):
        value = getattr(request, field)
        why = None if value is None or (field == "strength" and value == 0) else variants.refusal(field)
        if why:
            raise invalid(field, f"{field}={value} cannot be honoured: {why}", "unsupported_field")
    if request.strength == 0:
        for field in ("budget", "hold", "span"):
            if getattr(request, field) is not None:
                raise invalid(field, f"{field}={getattr(request, field)} has no effect with strength 0: leave it out")
        return Noise(strength=0.0)
    if request.strength is not None and request.budget is not None:
        raise invalid("budget", f"budget={request.budget} decides the strength: leave strength={request.strength} out")
    noise = variants.normal(Noise(request.strength, request.budget, request.hold, request.span))
    try:
        variants.config(noise)
    except ValueError as error:
        raise invalid("strength" if request.budget is None else "budget", str(error)) from error
    return noise


def _paths(engine: Engine, request: CommonFields, prompts: int, spread: bool) -> tuple[list[list[int]], int | None]:
    most = engine.limits.choices
    each = request.n or (len(request.paths) if request.paths else 1)
    if request.paths is not None:
        if request.seed is not None:
            raise invalid("seed", f"seed={request.seed} has no effect beside paths: leave one of the two out")
        if request.n is not None and request.n != len(request.paths):
            raise invalid("n", f"n={request.n}, but paths names {len(request.paths)}: leave n out")
    if each * prompts > most:
        texts = f"{each * prompts} texts" if prompts == 1 else f"{each} texts for each of {prompts} prompts"
        raise invalid(
            "paths" if request.paths else "n", f"{texts} are more than the {most} that one request may ask for"
        )
    if request.paths is not None:
        ids = [parse_path(path) for path in request.paths]
        for place, path in enumerate(ids):
            if path in ids[:place]:
                raise invalid("paths", f"path {format_path(path)} is named twice: name it once")
        return [ids] * prompts, None
    # 53 bits: the most that every reader of JSON numbers keeps exact
    seed = draw_seed() >> 11 if request.seed is None else request.seed
    return [derive_paths(seed, each, prompt=prompt, spread=spread) for prompt in range(prompts)], seed


def _room(engine: Engine, length: int, asked: int | None, name: str) -> int:
    """How many tokens a prompt of `length` tokens may be continued by."""
    context = engine.served.context
    if context is None:
        return asked or _DEFAULT_CHAT_TOKENS
    room = context - length
    if room < 1:
        raise invalid(
            "messages" if name == "max_completion_tokens" else None,
            f"the prompt has {length} tokens, and the model holds {context} with the text to come: shorten it",
            "context_length_exceeded",
        )
    if asked is not None and asked > room:
        raise invalid(
            name,
            f"{name}={asked} and a prompt of {length} tokens exceed the model's context of {context}: ask for at most "
            f"{room}",
            "context_length_exceeded",
        )
    return asked or room


def _prompt_ids(engine: Engine, prompt: str | list[int], param: str) -> tuple[int, ...]:
    if isinstance(prompt, str):
        return _tokens(engine, prompt, param, special=True)
    vocabulary = engine.served.routed.model.config.get_text_config().vocab_size
    wrong = [token for token in prompt if token >= vocabulary]
    if wrong:
        raise invalid(param, f"token id {wrong[0]} is outside the model's vocabulary of {vocabulary}")
    return tuple(prompt)


def _tokens(engine: Engine, text: str, param: str, special: bool) -> tuple[int, ...]:
    ids = engine.reading_tokenizer(text, add_special_tokens=special)["input_ids"]
    if not ids:
        raise invalid(param, f"{param} gives no token: write more")
    return tuple(ids)


def _role(role: str) -> str:
    return "system" if role == "developer" else role  # a newer name that templates do not know


def describe(engine: Engine, started: int) -> ModelCard:
    """The served model, and which of the project's fields do something here."""
    variants, config = engine.scheduler.variants, engine.served.routed.config
    kind: Any = config.structural or config.attention or config.experts
    defaults = {"strength": getattr(kind, "strength", None), "hold": getattr(kind, "hold", None), "span": config.span}
    fields = {"paths": FieldState(on=True)}
    for name in ("strength", "budget", "hold", "span"):
        why = variants.refusal(name)
        fields[name] = FieldState(on=why is None, default=defaults.get(name), why=why)
    if variants.budgets:
        fields["budget"].reach = variants.budgets.reach
    return ModelCard(
        id=engine.served.name,
        created=started,
        owned_by="stochroute",
        context=engine.served.context,
        most_choices=engine.limits.choices,
        chat=bool(engine.reading_tokenizer.chat_template),
        fields=fields,
    )
