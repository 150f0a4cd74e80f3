"""The way to an API server from a kubeconfig, for development: its simple forms and no others.

What is not understood is refused by name, because leaving it out would mean another user or another
server than the file means. The client library would understand all, but is not in our image.
"""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from serving_router.api_access import Access, trusting
from serving_router.errors import InvalidAccess

M = TypeVar("M", bound=BaseModel)


def _spelled(field: str) -> str:
    return field.replace("_", "-")


class _Cluster(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=_spelled)

    server: str = Field(pattern=r"^https?://[^\s@?#]+$")
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    extensions: JsonValue = None


class _User(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=_spelled)

    token: str | None = None
    token_file: str | None = Field(default=None, alias="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    extensions: JsonValue = None


class _Context(BaseModel):
    cluster: str
    user: str
    namespace: str | None = None


class _Named(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str


class _File(BaseModel):
    current_context: str = Field(alias="current-context")
    contexts: list[_Named]
    clusters: list[_Named]
    users: list[_Named]


class Kubeconfig:
    """The current context of one file.

    Raises:
        OSError: the file, or one that it names, cannot be read.
        InvalidAccess: it holds something that is not understood.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.read()

    @property
    def namespace(self) -> str | None:
        """The context's."""
        return self._parsed()[0].namespace

    def read(self) -> Access:
        """Return what the file says now.

        Raises:
            OSError: the file, or one that it names, cannot be read.
            InvalidAccess: it holds something that is not understood.
        """
        _, cluster, user = self._parsed()
        try:
            tls = self._tls(cluster, user) if cluster.server.startswith("https:") else None
        except ValueError as error:
            raise self._refusal(f"data that is not base64: {error}") from error
        token = user.token
        if user.token_file is not None:
            token = self._path(user.token_file).read_text().strip()
        return Access(server=cluster.server.rstrip("/"), token=token, tls=tls)

    def _parsed(self) -> tuple[_Context, _Cluster, _User]:
        try:
            whole = _File.model_validate(yaml.safe_load(self._file.read_bytes()))
        except (yaml.YAMLError, ValidationError) as error:
            raise self._refusal(_first_line(error)) from error
        context = self._named("context", whole.contexts, whole.current_context, _Context)
        cluster = self._named("cluster", whole.clusters, context.cluster, _Cluster)
        return context, cluster, self._named("user", whole.users, context.user, _User)

    def _named(self, kind: str, entries: Iterable[_Named], name: str, model: type[M]) -> M:
        found = [(entry.model_extra or {}).get(kind) for entry in entries if entry.name == name]
        if not found:
            raise self._refusal(f"it has no {kind} named {name!r}")
        try:
            return model.model_validate(found[0] or {})
        except ValidationError as error:
            raise self._refusal(f"{kind} {name!r}: {_first_line(error)}") from error

    def _refusal(self, reason: str) -> InvalidAccess:
        return InvalidAccess(f"--kubeconfig {self._file}: {reason}")

    def _path(self, name: str) -> Path:
        """Names in the file are relative to the file."""
        return self._file.parent / name

    def _tls(self, cluster: _Cluster, user: _User) -> ssl.SSLContext:
        if cluster.certificate_authority_data is not None:
            tls = trusting(cadata=_decoded(cluster.certificate_authority_data).decode("ascii"))
        elif cluster.certificate_authority is not None:
            tls = trusting(cafile=self._path(cluster.certificate_authority))
        else:
            tls = trusting()
        certificate = self._pem(user.client_certificate, user.client_certificate_data)
        if certificate is not None:
            key = self._pem(user.client_key, user.client_key_data) or b""
            _load_pair(tls, certificate, key)
        return tls

    def _pem(self, name: str | None, data: str | None) -> bytes | None:
        """Data wins over a file, as it does for kubectl."""
        if data is not None:
            return _decoded(data)
        return None if name is None else self._path(name).read_bytes()


def _decoded(data: str) -> bytes:
    return base64.b64decode(data, validate=True)


def _load_pair(tls: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Load a pair that may never have been in a file; the ssl module takes nothing else."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        tls.load_cert_chain(file.name)


def _first_line(error: yaml.YAMLError | ValidationError) -> str:
    if not isinstance(error, ValidationError):
        return f"not YAML: {' '.join(str(error).split())}"
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"])) or "the file"
    if first["type"] == "extra_forbidden":
        return (
            f"{where} is not understood here; use token, tokenFile or a client certificate, "
            "and a certificate authority"
        )
    return f"{where}: {first['msg']}"
