"""What must not be shown: secrets nowhere, and what identifies a customer not in the page that is published."""

import re

from lifecyclehook_operator.cloud.credentials import Credentials

_HEX = "[0-9a-fA-F]"
_IDENTIFIER = re.compile(rf"(?<!{_HEX})(?:{_HEX}{{32}}|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})(?!{_HEX})")
#: The beginning of an identifier that stays, so that two of them can be told apart.
_KEPT_CHARACTERS = 4


class Masking:
    """Knows the secrets and the names of a run, and takes them out of texts."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._names: dict[str, str] = {}

    def add_secret(self, secret: str) -> None:
        if secret:
            self._secrets.add(secret)

    def add_name(self, name: str, label: str) -> None:
        """Have a name, such as an ID, replaced by a label where names are masked."""
        if name:
            self._names[name] = label

    def add_credentials(self, credentials: Credentials) -> None:
        for secret in (credentials.password, credentials.sk, credentials.security_token):
            self.add_secret(secret.get_secret_value() if secret else "")
        for label in ("username", "user_id", "ak", "project_id", "project_name"):
            self.add_name(getattr(credentials, label), label.upper())
        for label in ("user_domain_name", "user_domain_id", "project_domain_name", "project_domain_id"):
            self.add_name(getattr(credentials, label), "DOMAIN")

    def hide_secrets(self, text: str) -> str:
        """Return a text for the terminal."""
        return self._replace(text, dict.fromkeys(self._secrets, "***"), r"")

    def hide_all(self, text: str) -> str:
        """Return a text for the public: without secrets, and without what tells whose project it was."""
        text = self._replace(self.hide_secrets(text), self._names, r"\w")
        return _IDENTIFIER.sub(lambda found: f"{found[0][:_KEPT_CHARACTERS]}…", text)

    @staticmethod
    def _replace(text: str, labels: dict[str, str], word: str) -> str:
        if not labels:
            return text
        # The longest first: one may be a part of another.
        choices = "|".join(re.escape(each) for each in sorted(labels, key=len, reverse=True))
        edges = (f"(?<!{word})", f"(?!{word})") if word else ("", "")
        return re.sub(f"{edges[0]}(?:{choices}){edges[1]}", lambda found: labels[found[0]], text)
