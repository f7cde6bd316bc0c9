"""Errors as the OpenAI API words them: {"error": {"message", "type", "param", "code"}}."""

from typing import Any


class ApiError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        message: names the field, the value and the remedy.
        code: a short name for programs.
        param: the field of the request that is wrong, if one is.
        retry_after: seconds after which another try may succeed; sent as a header.
    """

    def __init__(self, status: int, message: str, code: str, param: str | None = None, retry_after: int | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The error object."""
        return {"error": {"message": self.message, "type": _type(self.status), "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        if self.status == 401:
            return {"WWW-Authenticate": "Bearer"}
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


def invalid(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """The error for a field whose value cannot be used."""
    return ApiError(400, message, code, param)


def _type(status: int) -> str:
    """The type that the official clients expect with a status."""
    if status == 401:
        return "authentication_error"
    if status == 404:
        return "not_found_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
