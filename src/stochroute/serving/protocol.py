"""What requests and answers look like: the OpenAI API's fields that this server knows, and its own.

A field that is not listed is refused, as is a value that would have to be ignored: nothing is silent. Fields that
other servers act on, and this one does not, are taken at the value at which they do nothing.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PathText = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{16}$")]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=256)]
_MOST_PATHS = 1 << 16  # the server's own limit is lower, and worded better


class Strict(BaseModel):
    """Unknown fields and wrong types are errors, never converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class StreamOptions(Strict):
    include_usage: bool = Field(False, description="Send the token counts in a last chunk without choices.")
    include_obfuscation: Literal[False] | None = None


class PathFields(Strict):
    """The fields of this project, for `extra_body` of the official clients."""

    paths: list[PathText] | None = Field(
        None,
        min_length=1,
        max_length=_MOST_PATHS,
        description="Ids of the paths to walk, 16 hex digits each, without n and seed. Every prompt walks them all.",
    )
    strength: float | None = Field(
        None,
        ge=0,
        le=1000,
        allow_inf_nan=False,
        description="Of the noise, in the routing's own units. 0: the original model.",
    )
    budget: float | None = Field(
        None, gt=0, le=1000, allow_inf_nan=False, description="Strength by its effect: nats per noised position."
    )
    hold: Annotated[int, Field(ge=1, le=1 << 31)] | Literal["sequence"] | None = Field(
        None, description="Consecutive positions that share a draw."
    )
    span: Literal["generated", "all"] | None = Field(None, description="Which positions carry noise.")
    top_k: int | None = Field(None, ge=1, le=1 << 31, description="Keep the k likeliest tokens.")
    min_p: float | None = Field(
        None, ge=0, le=1, allow_inf_nan=False, description="Drop tokens below this share of the likeliest."
    )
    spread: bool | None = Field(
        None, description="Share what is likely out among the texts of a prompt: more different ones, none less likely."
    )


class CommonFields(PathFields):
    """What both endpoints take."""

    model: str = Field(description="The id that /v1/models names.")
    n: int | None = Field(
        None, ge=1, description="Texts for each prompt; 1 if left out, or as many as there are paths."
    )
    seed: int | None = Field(None, ge=0, lt=1 << 64, description="Derives the path ids. Left out: drawn, and reported.")
    temperature: float | None = Field(
        None, ge=0, le=2, allow_inf_nan=False, description="0: the likeliest token. Default: 1."
    )
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None


class CompletionRequest(CommonFields):
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=2048)]
        | Annotated[list[Token], Field(min_length=1)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1, max_length=2048)]
    ) = Field(description="A text, texts, token ids, or lists of token ids.")
    max_tokens: int | None = Field(None, ge=1, description="Default: 16.")
    logprobs: int | None = Field(None, ge=0, le=20, description="Report this many alternatives with each token.")
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None


class TextPart(Strict):
    type: Literal["text"]
    text: str


class Message(Strict):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[TextPart], Field(min_length=1)]
    name: str | None = None
    # what an answer's message holds beside its content, so that it can be sent back as it came
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextFormat(Strict):
    type: Literal["text"]


class ChatRequest(CommonFields):
    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_tokens: int | None = Field(None, ge=1, description="Default: what fits into the model's context.")
    max_completion_tokens: int | None = Field(None, ge=1, description="The newer name of max_tokens.")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: TextFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: Annotated[list[Literal["text"]], Field(min_length=1, max_length=1)] | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None


# -- answers


class Usage(BaseModel):
    prompt_tokens: int = Field(description="Each prompt once, however many texts continue it.")
    completion_tokens: int
    total_tokens: int


class ReceiptFields(BaseModel):
    """What a replay needs; see `stochroute.Receipt`."""

    path: str
    start: int
    routing: str
    noise_version: int
    model: str
    decoding: dict[str, Any]
    engine: str
    dtype: str


class Choice(BaseModel):
    index: int
    finish_reason: Literal["stop", "length"]
    path: str = Field(description="The path's id: give it in `paths` to walk it again.")
    receipt: ReceiptFields


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int] = Field(description="Where each token's text begins in the choice's text, in characters.")


class CompletionChoice(Choice):
    text: str
    logprobs: CompletionLogprobs | None


class Answer(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str = Field(description="Model, routing, noise version and dtype.")
    seed: str | None = Field(description="What the path ids were derived from, in decimal; null beside paths.")
    usage: Usage


class Completion(Answer):
    object: Literal["text_completion"] = "text_completion"
    choices: list[CompletionChoice]


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class AssistantMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(Choice):
    message: AssistantMessage
    logprobs: ChatLogprobs | None


class ChatCompletion(Answer):
    object: Literal["chat.completion"] = "chat.completion"
    choices: list[ChatChoice]


class FieldState(BaseModel):
    on: bool
    default: Any = None
    why: str | None = Field(default=None, description="Why it is off.")
    reach: tuple[float, float] | None = Field(default=None, description="Of a budget: the smallest and the largest.")


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    context: int | None = Field(description="Tokens of prompt and text together; null: not known.")
    most_choices: int
    chat: bool
    fields: dict[str, FieldState] = Field(description="The project's own request fields, and which do something here.")


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class Problem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    error: Problem


class Health(BaseModel):
    status: Literal["ok"]
