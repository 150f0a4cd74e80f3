from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving_contract.errors import InvalidTopology
from serving_contract.topology import Topology, parse_devices


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("0", (0,)),
        ("0,1,4-7", (0, 1, 4, 5, 6, 7)),
        ("3-3", (3,)),
        (" 1 , 2 ", (1, 2)),
        ("7,0", (7, 0)),
    ],
)
def test_devices_are_read_in_the_order_they_are_written(
    text: str, devices: tuple[int, ...]
) -> None:
    assert parse_devices(text) == devices


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "'' is neither a device id nor a range"),
        ("0,", "'' is neither"),
        ("a", "'a' is neither"),
        ("-1", "'-1' is neither"),
        ("1-", "'1-' is neither"),
        ("0x1", "'0x1' is neither"),
        ("²", "'²' is neither"),
        ("3-1", "the range 3-1 runs backwards; write 1-3"),
        ("0-99999", "above the highest device id"),
        ("0-999999999999", "is neither"),
    ],
)
def test_devices_that_cannot_be_read_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(InvalidTopology, match="--devices") as caught:
        parse_devices(text)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("dp", "tp", "devices", "complaint"),
    [
        (2, 2, (0, 1, 2), "--devices names 3 devices, but --dp 2 x --tp 2 needs 4"),
        (2, 1, (0,), "--devices names 1 device, but --dp 2 x --tp 1 needs 2"),
        (1, 2, (1, 1), "device 1 is named twice"),
        (0, 1, (), "--dp 0 is outside 1..512"),
        (513, 1, (), "--dp 513 is outside 1..512"),
        (1, 0, (), "--tp 0 is outside 1..64"),
        (1, 65, (), "--tp 65 is outside 1..64"),
        (1, 1, (-1,), "device -1 is negative"),
    ],
)
def test_topology_that_does_not_fit_is_refused(
    dp: int, tp: int, devices: tuple[int, ...], complaint: str
) -> None:
    with pytest.raises(InvalidTopology) as caught:
        Topology(dp=dp, tp=tp, devices=devices)
    assert str(caught.value) == complaint


def test_groups_are_consecutive_runs_of_the_devices_as_named() -> None:
    assert Topology(dp=2, tp=2, devices=(6, 7, 0, 1)).groups == ((6, 7), (0, 1))


def test_sizes_alone_take_the_first_devices() -> None:
    assert Topology.of_sizes(dp=3, tp=2).devices == (0, 1, 2, 3, 4, 5)


@given(
    dp=st.integers(1, 16),
    tp=st.integers(1, 8),
    devices=st.permutations(range(128)),
)
def test_every_device_belongs_to_exactly_one_group(dp: int, tp: int, devices: list[int]) -> None:
    topology = Topology(dp=dp, tp=tp, devices=tuple(devices[: dp * tp]))
    owned = [device for group in topology.groups for device in group]
    assert owned == devices[: dp * tp]
    assert {len(group) for group in topology.groups} == {tp}
