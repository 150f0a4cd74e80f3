"""The wire format against bytes that are written down."""

from __future__ import annotations

import pytest
from tests.cluster.wire import decode, encode, messages, number, texts


def test_message_has_the_bytes_of_the_specification() -> None:
    assert encode((1, 150)) == bytes.fromhex("089601")
    assert encode((2, "testing")) == bytes.fromhex("120774657374696e67")
    assert encode((3, encode((1, 150)))) == bytes.fromhex("1a03089601")


def test_what_is_encoded_is_decoded() -> None:
    message = encode((1, "a"), (2, 300), (1, "b"), (3, b"x" * 200))
    assert texts(message, 1) == ["a", "b"]
    assert number(message, 2) == 300
    assert messages(message, 3) == [b"x" * 200]
    assert texts(message, 9) == []
    assert number(message, 9) == 0


@pytest.mark.parametrize("data", ["80", "0d00000000"], ids=["cut", "of another type"])
def test_what_cannot_be_read_is_refused(data: str) -> None:
    with pytest.raises(ValueError, match=r"message ends|wire type"):
        decode(bytes.fromhex(data))
