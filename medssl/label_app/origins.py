"""Who may call: programs on this computer, and no page that another site put into a browser."""

from __future__ import annotations

from collections.abc import Collection
from socket import AF_INET
from typing import Any
from urllib.parse import urlsplit

from psutil import net_if_addrs
from starlette.responses import JSONResponse

from medssl.workflows.labeling.launch import EVERY_ADDRESS

Scope = dict[str, Any]


def known_hosts(hosts: Collection[str]) -> tuple[str, ...]:
    """Return the names under which a server may be called, with the addresses that "0.0.0.0" stands for.

    A page of another site cannot pose as one of them: a name that it points to this computer is not among them.
    """
    if EVERY_ADDRESS not in hosts:
        return tuple(hosts)
    own = {one.address for some in net_if_addrs().values() for one in some if one.family == AF_INET}
    return tuple(sorted({*hosts, *own} - {EVERY_ADDRESS}))


class OwnOriginOnly:
    """Refuse requests that a browser sends for a page of another site.

    Without it such a page could not read the answers, but send forms and files.

    Args:
        app: The server behind it.
        hosts: Names of this server.
    """

    def __init__(self, app: Any, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] in ("http", "websocket") and not self.allows(scope["headers"]):
            answer = JSONResponse({"detail": "Requests from other sites are not answered."}, status_code=403)
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def allows(self, headers: Collection[tuple[bytes, bytes]]) -> bool:
        """Tell whether headers are those of a program, or of a page of this server."""
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        if found.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return False
        origin = found.get("origin")
        return origin is None or urlsplit(origin).hostname in self.hosts
