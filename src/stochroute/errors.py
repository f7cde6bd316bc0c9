"""How the errors of other packages are told in messages of this one."""


def one_line(error: BaseException | str) -> str:
    """The message without line breaks, at most 400 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 400 else text[:399] + "…"
