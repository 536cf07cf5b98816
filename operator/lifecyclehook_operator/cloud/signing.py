"""Requests signed with an access key (AK/SK), as the API gateway of this cloud verifies them: SDK-HMAC-SHA256.

The canonical request is method, path, query, headers, names of the headers and hash of the body, a line each; what is
signed is the algorithm, the time and the hash of that.
"""

import hashlib
import hmac
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote

import httpx
from pydantic import SecretStr

ALGORITHM = "SDK-HMAC-SHA256"
DATE_HEADER = "X-Sdk-Date"
SECURITY_TOKEN_HEADER = "X-Security-Token"  # noqa: S105  (the name of a header, not a secret)

_UNRESERVED = "-_.~"


class SignatureAuth(httpx.Auth):
    """Signs each request; a temporary access key also needs its security token."""

    requires_request_body = True

    def __init__(
        self,
        access_key: str,
        secret_key: SecretStr,
        security_token: SecretStr | None = None,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._security_token = security_token
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign the request as it is: host, content type, and what begins with X- but for the security token."""
        request.headers[DATE_HEADER] = self._now().astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
        # The security token is sent but not signed: a gateway that refuses a signature may answer with what was signed.
        if self._security_token is not None:
            request.headers[SECURITY_TOKEN_HEADER] = self._security_token.get_secret_value()
        names = sorted(
            name
            for name in map(str.lower, request.headers)
            if name in ("host", "content-type") or (name.startswith("x-") and name != SECURITY_TOKEN_HEADER.lower())
        )
        text = "\n".join((ALGORITHM, request.headers[DATE_HEADER], _hash(canonical_request(request, names).encode())))
        signature = hmac.new(self._secret_key.get_secret_value().encode(), text.encode(), hashlib.sha256).hexdigest()
        request.headers["Authorization"] = (
            f"{ALGORITHM} Access={self._access_key}, SignedHeaders={';'.join(names)}, Signature={signature}"
        )
        yield request


def canonical_request(request: httpx.Request, signed_headers: list[str]) -> str:
    """Return the canonical form of a request, for these headers, given in lower case and sorted."""
    path = "/".join(
        quote(unquote(part), safe=_UNRESERVED) for part in request.url.raw_path.decode().split("?")[0].split("/")
    )
    query = [
        f"{quote(name, safe=_UNRESERVED)}={quote(value, safe=_UNRESERVED)}"
        for name, value in sorted(parse_qsl(request.url.query.decode(), keep_blank_values=True))
    ]
    headers = "".join(f"{name}:{request.headers[name].strip()}\n" for name in signed_headers)
    return "\n".join(
        (
            request.method.upper(),
            path if path.endswith("/") else f"{path}/",
            "&".join(query),
            headers,
            ";".join(signed_headers),
            _hash(request.content),
        )
    )


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
