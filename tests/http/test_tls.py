from __future__ import annotations

import asyncio
import logging
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trustme

from serving_http.tls import Tls, ssl_context

Serving = Callable[..., AbstractAsyncContextManager[tuple[str, int]]]


class Clock:
    """Each look is far from the one before."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 10
        return self.now


class MountedSecret:
    """A kubernetes.io/tls Secret as it is mounted: swapped as a whole behind `..data`."""

    def __init__(self, folder: Path, authority: trustme.CA) -> None:
        self._folder = folder
        self._authority = authority
        self._version = 0
        folder.mkdir()
        self.first = self.replace()
        for name in ("tls.crt", "tls.key"):
            (folder / name).symlink_to(f"..data/{name}")

    @property
    def tls(self) -> Tls:
        return Tls(cert=self._folder / "tls.crt", key=self._folder / "tls.key")

    def replace(self, *, key: bytes | None = None) -> bytes:
        """Swap in a new pair and return its certificate; a key that is given does not fit."""
        pair = self._authority.issue_cert("localhost", "127.0.0.1")
        certificate = pair.cert_chain_pems[0].bytes()
        self._version += 1
        version = self._folder / f"..{self._version}"
        version.mkdir()
        (version / "tls.crt").write_bytes(certificate)
        (version / "tls.key").write_bytes(key or pair.private_key_pem.bytes())
        (self._folder / "..next").symlink_to(version.name)
        (self._folder / "..next").rename(self._folder / "..data")
        return ssl.PEM_cert_to_DER_cert(certificate.decode())

    def other_key(self) -> bytes:
        return self._authority.issue_cert("localhost").private_key_pem.bytes()

    def remove(self) -> None:
        shutil.rmtree(self._folder)


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def secret(tmp_path: Path, authority: trustme.CA) -> MountedSecret:
    return MountedSecret(tmp_path / "tls", authority)


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    authority.configure_trust(context)
    return context


async def certificate_of(
    address: tuple[str, int], client: ssl.SSLContext, name: str = "localhost"
) -> bytes:
    """Connect, and return the certificate that the server shows."""
    _, writer = await asyncio.open_connection(*address, ssl=client, server_hostname=name)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    writer.close()
    await writer.wait_closed()
    return shown


@pytest.fixture
async def address(secret: MountedSecret) -> AsyncIterator[tuple[str, int]]:
    """A server that looks at its files for each connection and says nothing."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    context = ssl_context(secret.tls, clock=Clock())
    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield host, port


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"], ids=["with SNI", "without SNI"])
async def test_new_connection_sees_the_new_certificate(
    secret: MountedSecret, address: tuple[str, int], client: ssl.SSLContext, name: str
) -> None:
    assert await certificate_of(address, client, name) == secret.first
    renewed = secret.replace()
    assert await certificate_of(address, client, name) == renewed


async def test_open_connection_lives_on(secret: MountedSecret, client: ssl.SSLContext) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    context = ssl_context(secret.tls, clock=Clock())
    async with await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context) as server:
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(
            *address, ssl=client, server_hostname="localhost"
        )
        renewed = secret.replace()
        assert await certificate_of(address, client) == renewed
        writer.write(b"still here\n")
        assert await reader.readline() == b"still here\n"
        writer.close()
        await writer.wait_closed()


async def test_pair_that_does_not_fit_keeps_the_old_one_with_one_warning(
    secret: MountedSecret,
    address: tuple[str, int],
    client: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    secret.replace(key=secret.other_key())
    with caplog.at_level(logging.WARNING, "serving_http.tls"):
        for _ in range(3):
            assert await certificate_of(address, client) == secret.first
        secret.replace(key=b"half of a k")
        assert await certificate_of(address, client) == secret.first
    assert len(caplog.records) == 1
    renewed = secret.replace()
    assert await certificate_of(address, client) == renewed


async def test_files_that_vanish_keep_the_old_pair(
    secret: MountedSecret, address: tuple[str, int], client: ssl.SSLContext
) -> None:
    secret.remove()
    assert await certificate_of(address, client) == secret.first


def test_files_are_looked_at_once_a_second_at_most(secret: MountedSecret) -> None:
    clock = Clock()
    context = ssl_context(secret.tls, clock=lambda: clock.now)
    secret.replace()
    shown = [chosen_by(context)]
    clock.now += 0.9
    shown.append(chosen_by(context))
    clock.now += 0.1
    shown.append(chosen_by(context))
    assert shown[0] is shown[1]
    assert shown[1] is not shown[2]


def chosen_by(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context that a connection gets."""
    connection = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert context.sni_callback is not None
    context.sni_callback(connection, "", context)
    return connection.context


BROKEN = {
    "a key that does not fit": lambda secret: secret.replace(key=secret.other_key()),
    "no files": lambda secret: secret.remove(),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN.keys())
def test_pair_that_is_broken_at_the_start_is_refused(
    secret: MountedSecret, broken: Callable[[MountedSecret], object]
) -> None:
    broken(secret)
    with pytest.raises(OSError):  # noqa: PT011 - each in the words of its library
        ssl_context(secret.tls)


async def test_server_shows_the_new_certificate(
    serving: Serving, secret: MountedSecret, client: ssl.SSLContext
) -> None:
    """The whole server, whose looks at the files are a second apart."""
    async with serving(tls=secret.tls) as address:
        assert await certificate_of(address, client) == secret.first
        renewed = secret.replace()
        async with asyncio.timeout(60):
            while await certificate_of(address, client) != renewed:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.05)
