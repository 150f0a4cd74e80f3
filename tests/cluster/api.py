"""A small synchronous client of the API server for tests.

The operator's own client is what is tested, so tests ask with one that shares nothing with it:
bodies are dicts, paths are the API's own, a refusal carries the API server's words.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, TypeVar

import yaml
from tests.cluster.errors import ApiRefused

Body = dict[str, Any]
Bodies = list[Body]
PatchKind = Literal["merge", "apply", "json", "strategic"]
T = TypeVar("T")

FIELD_MANAGER: Final = "tests"
_REQUEST_TIMEOUT_S: Final = 60
_POLL_S: Final = 0.05
_PATCH_TYPES: Final[Mapping[PatchKind, str]] = {
    "merge": "application/merge-patch+json",
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


class Api:
    """Requests to one API server as one user; each has a connection of its own.

    Usable from several threads.
    """

    def __init__(self, url: str, tls: ssl.SSLContext, token: str | None) -> None:
        self.url = url
        self._address = urllib.parse.urlsplit(url)
        self._tls = tls
        self._token = token
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    def get(self, path: str, params: Mapping[str, str] | None = None) -> Body:
        """Return the object at `path`."""
        return self.request("GET", path, params=params)

    def list(self, path: str, selector: str = "") -> Bodies:
        """Return the items of the collection at `path` that bear the labels of `selector`."""
        answer = self.get(path, {"labelSelector": selector} if selector else None)
        items: Bodies = answer["items"]
        return items

    def create(self, path: str, body: Body, params: Mapping[str, str] | None = None) -> Body:
        """POST `body` to the collection at `path`."""
        return self.request("POST", path, body, params=params)

    def patch(
        self,
        path: str,
        body: Body | Bodies,
        kind: PatchKind = "merge",
        params: Mapping[str, str] | None = None,
    ) -> Body:
        """Change the object at `path`; an apply is forced, with the field manager `tests`."""
        always = {"fieldManager": FIELD_MANAGER} | ({"force": "true"} if kind == "apply" else {})
        return self.request(
            "PATCH", path, body, params=always | dict(params or {}), content=_PATCH_TYPES[kind]
        )

    def delete(
        self, path: str, body: Body | None = None, params: Mapping[str, str] | None = None
    ) -> Body:
        """DELETE what is at `path`; `body` is the DeleteOptions."""
        return self.request("DELETE", path, body, params=params)

    def exists(self, path: str) -> bool:
        """Return whether there is something at `path`."""
        try:
            self.get(path)
        except ApiRefused as refused:
            if refused.status == 404:
                return False
            raise
        return True

    def apply_yaml(self, text: str, namespace: str | None = None) -> Bodies:
        """Apply every document; what is namespaced and names no namespace goes into `namespace`."""
        documents = [document for document in yaml.safe_load_all(text) if document]
        return [
            self.patch(self.path_of(document, namespace), document, "apply")
            for document in documents
        ]

    def path_of(self, body: Body, namespace: str | None = None) -> str:
        """Return the path of an object that is given whole."""
        version, kind, metadata = body["apiVersion"], body["kind"], body["metadata"]
        plural, is_namespaced = self._resource(version, kind)
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        where = metadata.get("namespace") or namespace
        middle = f"/namespaces/{where}" if is_namespaced else ""
        return f"{root}{middle}/{plural}/{metadata['name']}"

    def _resource(self, version: str, kind: str) -> tuple[str, bool]:
        if kind not in self._resources.get(version, {}):
            root = f"/apis/{version}" if "/" in version else f"/api/{version}"
            self._resources[version] = {
                resource["kind"]: (resource["name"], resource["namespaced"])
                for resource in self.get(root)["resources"]
                if "/" not in resource["name"]
            }
        return self._resources[version][kind]

    def wait(self, predicate: Callable[[], T | None], what: str, timeout_s: float = 60) -> T:
        """Ask until the answer is true, and return it; what is not found is not true yet.

        Raises:
            TimeoutError: after a time that no sound run needs, naming `what` and the last answer.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            last = self._ask(predicate)
            if last and not isinstance(last, ApiRefused):
                return last
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {timeout_s:g} s; last seen: {last}")
            time.sleep(_POLL_S)

    @staticmethod
    def _ask(predicate: Callable[[], T | None]) -> T | ApiRefused | None:
        try:
            return predicate()
        except ApiRefused as refused:
            if refused.status != 404:
                raise
            return refused

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> Body:
        """Send one request and return the decoded answer.

        Raises:
            ApiRefused: if the API server answers with anything but success.
            OSError: if it cannot be reached.
        """
        with contextlib.closing(self.connect()) as connection:
            response = self.send(connection, method, path, body, params=params, content=content)
            return _decoded(response.read())

    def text(self, path: str) -> str:
        """Return what is at a path that answers no JSON, such as `/readyz`."""
        with contextlib.closing(self.connect()) as connection:
            return self.send(connection, "GET", path).read().decode()

    def connect(self, timeout_s: float = _REQUEST_TIMEOUT_S) -> http.client.HTTPSConnection:
        """Return a new connection; the caller closes it."""
        connection = http.client.HTTPSConnection(
            self._address.hostname or "",
            self._address.port or 443,
            timeout=timeout_s,
            context=self._tls,
        )
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def send(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        body: object = None,
        *,
        params: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> http.client.HTTPResponse:
        """Send a request on a connection and return its successful answer, not yet read."""
        headers = {"Accept": "application/json", "Content-Type": content}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        query = f"?{urllib.parse.urlencode(params)}" if params else ""
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, self._address.path + path + query, data, headers)
        response = connection.getresponse()
        if response.status >= 300:
            raise _refused(response.status, response.read())
        return response


def _decoded(data: bytes) -> Body:
    answer: Body = json.loads(data)
    return answer


def _refused(status: int, data: bytes) -> ApiRefused:
    try:
        answer = _decoded(data)
    except ValueError:
        return ApiRefused(status, "", data.decode(errors="replace"))
    return ApiRefused(
        status, answer.get("reason", ""), answer.get("message", ""), answer.get("details")
    )
