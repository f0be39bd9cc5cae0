"""Which other machines a sandbox may reach."""

import pytest

from ags_flows.emulator.reach import EVERYWHERE, NOWHERE, Reach

ALL = "0.0.0.0/0"


@pytest.mark.parametrize(
    ("network", "host", "address", "permitted"),
    [
        ({}, "any.example", "203.0.113.1", True),
        ({"denyOut": ["8.8.8.8"]}, "8.8.8.8", "8.8.8.8", False),
        ({"denyOut": ["8.8.8.8"]}, "dns.example", "8.8.8.8", False),
        ({"denyOut": ["8.8.8.8"]}, "1.1.1.1", "1.1.1.1", True),
        ({"denyOut": ["8.8.8.0/24"], "allowOut": ["8.8.8.8"]}, "8.8.8.8", "8.8.8.8", True),
        ({"denyOut": ["8.8.8.0/24"], "allowOut": ["8.8.8.8"]}, "8.8.8.9", "8.8.8.9", False),
        ({"denyOut": ["8.8.8.8"]}, "mapped", "::ffff:8.8.8.8", False),
        ({"denyOut": [ALL]}, "v6.example", "2001:db8::1", False),
        ({"denyOut": [ALL], "allowOut": ["2001:db8::/32"]}, "v6.example", "2001:db8::1", True),
        ({"denyOut": [ALL], "allowOut": ["example.com"]}, "Example.com.", "203.0.113.1", True),
        ({"denyOut": [ALL], "allowOut": ["example.com"]}, "a.example.com", "203.0.113.1", False),
        ({"denyOut": [ALL], "allowOut": ["*.example.com"]}, "a.b.example.com", "203.0.113.1", True),
        ({"denyOut": [ALL], "allowOut": ["*.example.com"]}, "example.com", "203.0.113.1", False),
        ({"denyOut": [ALL], "allowOut": ["*.example.com"]}, "badexample.com", "203.0.113.1", False),
        ({"denyOut": [ALL], "allowOut": [ALL]}, "any.example", "203.0.113.1", True),
    ],
)
def test_allowed_wins_over_denied_and_the_rest_is_open_unless_all_is_denied(network, host, address, permitted):
    assert Reach.of(network).permits(host, address) is permitted


def test_nothing_and_everything():
    assert Reach.of({}) == EVERYWHERE and not EVERYWHERE.nowhere
    assert Reach.of({"denyOut": [ALL]}) == Reach.of({}, internet=False) == NOWHERE and NOWHERE.nowhere
    assert not Reach.of({"allowOut": ["1.1.1.1"]}, internet=False).nowhere


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"denyOut": "8.8.8.8"}, "network.denyOut must be a list of strings"),
        ({"allowOut": [8]}, "network.allowOut must be a list of strings"),
        ({"denyOut": ["example.com"]}, "'example.com' is neither an IP address nor a block"),
        ({"denyOut": [ALL], "allowOut": ["not a host"]}, "'not a host' is neither"),
        ({"allowOut": ["example.com"]}, "network.denyOut needs 0.0.0.0/0"),
        ({"allowOut": ["8.8.8.8:80"]}, "names a port"),
        ({"denyOut": ["[2001:db8::1]:80"]}, "names a port"),
    ],
)
def test_an_invalid_rule_is_refused_by_name(network, said):
    with pytest.raises(ValueError) as caught:
        Reach.of(network)

    assert said in str(caught.value)
