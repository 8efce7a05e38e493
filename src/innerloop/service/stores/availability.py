"""A database that does not answer, told in one line without the password of its address."""

from urllib.parse import quote, quote_plus, unquote, urlsplit

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
    authority, _, query = url.partition("?")
    given = [
        value for name, _, value in (part.partition("=") for part in query.split("&")) if "password" in name
    ]
    # From the last @ on: a password that was not quoted may hold more of them.
    login = urlsplit(authority).netloc.rpartition("@")[0]
    given.append(login.partition(":")[2])
    forms = {
        form
        for raw in given
        for form in (raw, unquote(raw), quote(unquote(raw), safe=""), quote_plus(unquote(raw)))
    }
    return sorted(forms - {""}, key=len, reverse=True)
