import pytest

pytest.importorskip("starlette")

from medssl.label_app.origins import OwnOriginOnly


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
