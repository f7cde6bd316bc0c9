"""Pages under zh/ say that they are Chinese, so that screen readers, fonts and search engines know."""

from typing import Any

_DECLARED = '<html lang="en"'


def on_post_page(output: str, page: Any, **_: object) -> str:
    """The finished page with the language that it is written in."""
    if not page.file.src_uri.startswith("zh/"):
        return output
    if _DECLARED not in output:
        raise ValueError(f"{page.file.src_uri}: the theme declares no {_DECLARED}: mend docs/hooks/languages.py")
    return output.replace(_DECLARED, '<html lang="zh"', 1)
