"""The authors' links: from a share page to the file itself, and where a redirect may lead."""

from __future__ import annotations

import re
from email.message import Message
from http.client import HTTPResponse
from http.cookiejar import CookieJar
from typing import IO, cast
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit
from urllib.request import HTTPCookieProcessor, HTTPRedirectHandler, OpenerDirector, Request, build_opener

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class UnsafeLink(Exception):
    """A link that is not followed; the message is the address without its query, and what is wrong with it."""


def direct_url(url: str) -> str:
    """The address that answers with the file's bytes.

    Google Drive shows a page; with `confirm=t` its download address also gives files too large for its virus scan.
    SharePoint shows a viewer unless told otherwise. Other links are left as they are.
    """
    split = urlsplit(url)
    host, query = split.hostname or "", parse_qs(split.query)
    if host in ("drive.google.com", "docs.google.com"):
        named = re.match(r"/file/d/([\w-]+)", split.path)
        file = named[1] if named else query.get("id", [""])[0]
        if file:
            asked = urlencode({"id": file, "export": "download", "confirm": "t"})
            return f"https://drive.usercontent.google.com/download?{asked}"
    if host.endswith(".sharepoint.com") and "download" not in query:
        return urlunsplit(split._replace(query=f"{split.query}&download=1".lstrip("&")))
    return url


def require_safe(url: str) -> None:
    """Raise UnsafeLink unless `url` is https, or http on this machine."""
    split = urlsplit(url)
    if split.scheme == "https" and split.hostname:
        return
    if split.scheme == "http" and split.hostname in LOOPBACK:
        return
    raise UnsafeLink(f"{_without_query(url)}, which is not https")


def _without_query(url: str) -> str:
    return urlunsplit(urlsplit(url)._replace(query="", fragment=""))


def new_opener() -> OpenerDirector:
    """Follows redirects to safe addresses only, and keeps cookies: SharePoint opens a link by one."""
    return build_opener(HTTPCookieProcessor(CookieJar()), _SafeRedirects())


def open_url(opener: OpenerDirector, url: str, headers: dict[str, str], timeout_seconds: float) -> HTTPResponse:
    """Ask for `url`; `timeout_seconds` is for the connection and for each read."""
    require_safe(url)
    return cast(HTTPResponse, opener.open(Request(url, headers=headers), timeout=timeout_seconds))


class _SafeRedirects(HTTPRedirectHandler):
    """Only to https, and to this machine only from this machine: no server may have us ask its neighbours."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> Request | None:
        try:
            require_safe(newurl)
            # The host of the first request, whatever came in between.
            if urlsplit(newurl).hostname in LOOPBACK and req.origin_req_host.strip("[]") not in LOOPBACK:
                raise UnsafeLink(f"{_without_query(newurl)}, which is on this machine")
        except UnsafeLink:
            fp.close()  # nobody else does, once this is no redirect
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type, unused-ignore]
