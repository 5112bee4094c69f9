import pytest

pytest.importorskip("starlette")
pytest.importorskip("psutil")

import psutil

from medssl.label_app.origins import OwnOriginOnly, known_hosts


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"origin": "http://127.0.0.1:8000"}, True),
        ({"origin": "http://localhost:3000"}, True),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://127.0.0.1.evil.example"}, False),
        ({"origin": "null"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost"}, True),
        ({"sec-fetch-site": "none"}, True),
    ],
)
def test_only_programs_and_own_pages_are_answered(headers, allowed):
    found = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert OwnOriginOnly(None, ("127.0.0.1", "localhost")).allows(found) is allowed


def test_every_address_means_those_of_this_computer():
    own = known_hosts(("127.0.0.1", "localhost", "0.0.0.0", "here"))
    addresses = {one.address for some in psutil.net_if_addrs().values() for one in some if "." in one.address}
    assert {"127.0.0.1", "localhost", "here"} | addresses == set(own)
    assert "0.0.0.0" not in own


def test_without_it_only_the_names_that_were_given_count():
    assert known_hosts(("127.0.0.1", "localhost")) == ("127.0.0.1", "localhost")
