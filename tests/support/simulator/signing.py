"""AK/SK request signing, as a service of this cloud checks it: who sent the request, or why that can't be told.

    Authorization: <form>, SignedHeaders=<a;b;c>, Signature=<hex>

- `SDK-HMAC-SHA256 Access=AK`: what the cloud documents and the SDKs of today send. The key is the SK itself.
- `SDK-HMAC-SHA256 Credential=AK/yyyymmdd/region/service/sdk_request`: what golangsdk and gophertelekomcloud (terraform)
  send, with region and service empty (`AK/yyyymmdd///sdk_request`). The key is a chain of HMACs: of the date keyed with
  `SDK` + SK, then of region, service and `sdk_request`, each keyed with the one before.
- `V11-HMAC-SHA256 Credential=AK/yyyymmdd/region/service`: the newer SDKs' derived form. The key is the lower-case hex,
  as text, of 32 bytes of HKDF-SHA256 (RFC 5869): the SK with the AK for salt and the scope for info.

String to sign, joined by line feeds: the algorithm, X-Sdk-Date, with the latter two forms the scope (`Credential` from
its date on), the hex SHA-256 of the canonical request. Signature: its HMAC-SHA256 in hex.

Canonical request, joined by line feeds: the method; the path, each segment percent-encoded by RFC 3986, with a slash
at its end; the query, `name=value` encoded likewise, sorted by name and value before that; the signed headers, lower
case and sorted, a line `name:value` each, the value trimmed (golangsdk also makes one space of several); their names,
joined by `;`; the hex SHA-256 of the body, or the header X-Sdk-Content-Sha256 where there is one: the same value, or
UNSIGNED-PAYLOAD for a body left out. (golangsdk sorts names in either case alike and takes one value a name, which are
no good signatures here; the documentation sorts `F` before `b`.)

X-Sdk-Date must be signed and is good for 15 minutes either way. The cloud's documentation asks for no other header, and
the Go SDK signs no Host; a key here asks for `must_sign`, of which Host is the default, for a signature that is good at
one host alone is what a client should send. A temporary key comes with a token in X-Security-Token: it has to be there,
but golangsdk adds it after signing, so signed it need not be.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote_to_bytes

from .cloud import AccessKey, Answer, Call, Cloud

SCHEMES = ("SDK-HMAC-SHA256", "V11-HMAC-SHA256")
UNSIGNED = "UNSIGNED-PAYLOAD"
TOLERANCE = timedelta(minutes=15)
DATE = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
AUTHORIZATION = re.compile(
    r"(?P<algorithm>(?:SDK|V11)-HMAC-SHA256) (?P<kind>Access|Credential)=(?P<key>[^,\s]+),\s*"
    r"SignedHeaders=(?P<headers>[^,\s]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)


class SignatureError(Exception):
    """The request is refused by the gateway, before any service sees it."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        body = {"error_code": "APIGW.0301", "error_msg": f"Incorrect IAM authentication information: {message}"}
        self.answer = Answer(401, body)


@dataclass(slots=True, frozen=True)
class Proof:
    """What an Authorization header claims."""

    algorithm: str
    access: str
    scope: tuple[str, ...]
    signed: tuple[str, ...]
    signature: str

    @property
    def is_chained(self) -> bool:
        return bool(self.scope) and self.algorithm.startswith("SDK")


def is_signed(headers: Mapping[str, str]) -> bool:
    return headers.get("Authorization", "").startswith(SCHEMES)


def verify(cloud: Cloud, call: Call) -> AccessKey:
    """Return the access key that a request is signed with."""
    proof = _parse_authorization(call.headers["Authorization"])
    key = cloud.access_keys.get(proof.access)
    if key is None:
        raise SignatureError(f"there is no access key {proof.access}")
    date = _check_date(cloud, call, proof)
    for name in sorted(key.must_sign - set(proof.signed)):
        raise SignatureError(f"the header {name} is not signed")
    canonical = _canonical_request(call, proof)
    text = "\n".join([proof.algorithm, date, *_scope_line(proof), _sha256(canonical)])
    expected = _hmac(_signing_key(proof, key.secret), text.encode()).hex()
    if not hmac.compare_digest(expected, proof.signature):
        shown = canonical.decode(errors="replace").replace("\n", "|")  # the service tells it as well
        raise SignatureError(f"the signature is not the one of this request, canonicalRequest:{shown}")
    _check_security_token(key, call.headers.get("X-Security-Token"))
    return key


def _parse_authorization(header: str) -> Proof:
    found = AUTHORIZATION.fullmatch(header)
    if found is None:
        raise SignatureError("the Authorization header is not well-formed")
    access, *scope = found["key"].split("/")
    proof = Proof(found["algorithm"], access, tuple(scope), tuple(found["headers"].split(";")), found["signature"])
    match found["kind"], found["algorithm"][:3], scope:
        case ("Access", "SDK", []) | ("Credential", "SDK", [_, _, _, "sdk_request"]):
            pass
        case ("Credential", "V11", [_, region, service]) if region and service:
            pass
        case _:
            raise SignatureError("the credential of the Authorization header is not well-formed")
    if list(proof.signed) != sorted({name.lower() for name in proof.signed}):
        raise SignatureError("the names of the signed headers are not unique, sorted and in lower case")
    return proof


def _check_date(cloud: Cloud, call: Call, proof: Proof) -> str:
    date = call.headers.get("X-Sdk-Date", "")
    if "x-sdk-date" not in proof.signed or not date:
        raise SignatureError("the header x-sdk-date is not signed")
    try:
        moment = datetime.strptime(date if DATE.fullmatch(date) else "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError as error:
        raise SignatureError("the header x-sdk-date is no date") from error
    if abs(cloud.now() - moment) > TOLERANCE:
        raise SignatureError("the signature has run out, or the clocks differ by more than 15 minutes")
    if proof.scope and proof.scope[0] != date[:8]:
        raise SignatureError("the date of the credential is not that of the header x-sdk-date")
    return date


def _check_security_token(key: AccessKey, token: str | None) -> None:
    if key.security_token is None and token is not None:
        raise SignatureError("the access key is a permanent one and has no security token")
    if key.security_token is not None and token is None:
        raise SignatureError("the access key is a temporary one, and X-Security-Token is missing")
    if not hmac.compare_digest((key.security_token or "").encode(), (token or "").encode(errors="replace")):
        raise SignatureError("the security token is not that of the access key")


def _scope_line(proof: Proof) -> list[str]:
    return ["/".join(proof.scope)] if proof.scope else []


def _signing_key(proof: Proof, secret: str) -> bytes:
    if proof.is_chained:
        key = f"SDK{secret}".encode()
        for part in proof.scope:
            key = _hmac(key, part.encode())
        return key
    if proof.scope:
        extracted = _hmac(proof.access.encode(), secret.encode())
        return _hmac(extracted, "/".join(proof.scope).encode() + b"\x01").hex().encode()
    return secret.encode()


def _canonical_request(call: Call, proof: Proof) -> bytes:
    parts = [
        call.method.encode(),
        _canonical_path(call.raw_path),
        _canonical_query(call.raw_query),
        _canonical_headers(call, proof),
        ";".join(proof.signed).encode(),
        _payload_hash(call),
    ]
    return b"\n".join(parts)


def _canonical_path(raw_path: str) -> bytes:
    path = "/".join(_encode(unquote_to_bytes(segment)) for segment in raw_path.split("/"))
    return (path if path.endswith("/") else f"{path}/").encode()


def _canonical_query(raw_query: str) -> bytes:
    pairs = (part.replace("+", " ").partition("=") for part in raw_query.split("&") if part)
    decoded = sorted((unquote_to_bytes(name), unquote_to_bytes(value)) for name, _, value in pairs)
    return "&".join(f"{_encode(name)}={_encode(value)}" for name, value in decoded).encode()


def _canonical_headers(call: Call, proof: Proof) -> bytes:
    lines = []
    for name in proof.signed:
        value = call.headers.get(name)
        if value is None:
            raise SignatureError(f"the signed header {name} is missing")
        value = re.sub(r"\s+", " ", value, flags=re.ASCII) if proof.is_chained else value
        lines.append(f"{name}:{value.strip()}\n")
    return "".join(lines).encode(errors="surrogateescape")


def _payload_hash(call: Call) -> bytes:
    computed, sent = _sha256(call.body), call.headers.get("X-Sdk-Content-Sha256")
    if sent not in (None, UNSIGNED, computed):
        raise SignatureError("the header x-sdk-content-sha256 is not that of the body")
    return (sent or computed).encode()


def _encode(value: bytes) -> str:
    return quote(value, safe="~")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")
