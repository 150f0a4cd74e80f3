from __future__ import annotations

from pathlib import Path

from tests.cluster.tokens import ADMIN, Tokens, node_user


def test_no_two_clusters_have_a_token_in_common() -> None:
    assert Tokens().of(ADMIN) != Tokens().of(ADMIN)


def test_tokens_are_written_for_their_owner_alone(tmp_path: Path) -> None:
    tokens = Tokens(["n1"])
    written = tokens.write(tmp_path / "tokens.csv")
    assert written.stat().st_mode & 0o777 == 0o600
    rows = written.read_text().splitlines()
    assert f"{tokens.of(ADMIN)},admin,admin,system:masters" in rows
    node = tokens.of(node_user("n1"))
    assert f"{node},system:node:n1,system:node:n1,system:nodes" in rows
