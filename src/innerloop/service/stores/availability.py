"""A database that does not answer, told in one line without the password of its address."""

from urllib.parse import quote, quote_plus, unquote

from innerloop.service.stores.text import one_line


class Address:
    """Where a database is, fit to be shown.

    Args:
        url: as it was given, with the password.
    """

    def __init__(self, url: str) -> None:
        self._secrets = _secrets(url)
        self._shown = self.hide(url)

    def __str__(self) -> str:
        """The address without the password."""
        return self._shown

    def hide(self, text: str) -> str:
        """The text without the password, however it is written."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def trouble(self, error: BaseException) -> str:
        """The line for an error of the database's driver."""
        return f"the database {self} does not answer: {self.hide(one_line(error))}"


def _secrets(url: str) -> list[str]:
    """The forms in which a password may come up, the longest first."""
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite":
        return []
    # Up to the last @: a password that was not quoted may hold anything.
    login = rest.rpartition("@")[0]
    settings = (part.partition("=") for part in rest.partition("?")[2].split("&"))
    given = [login.partition(":")[2], *(value for name, _, value in settings if "password" in name.lower())]
    forms: set[str] = set()
    for raw in given:
        plain = unquote(raw)
        forms |= {raw, plain, quote(plain, safe=""), quote_plus(plain)}
    return sorted(forms - {""}, key=len, reverse=True)
