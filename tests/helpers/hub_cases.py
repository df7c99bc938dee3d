"""The situations in which a download from the Hub fails: how each comes about, and what is said."""

from __future__ import annotations

from hub_faults import Fault, drop, replace, silent, status, truncate

from disco_zoo.errors import AccessDenied, HubUnreachable, WeightsError

Case = tuple[Fault, type[WeightsError], tuple[str, ...]]

# What is done to each HEAD.
ANSWERS: dict[str, Case] = {
    "403": (status(403, X_Error_Message="not for you"), AccessDenied, ("HTTP 403: not for you", "hf auth login")),
    "429": (status(429, Retry_After="900"), HubUnreachable, ("HTTP 429", "in 900 s", "hf auth login")),
    "500": (status(500), HubUnreachable, ("an error of its own (HTTP 500)", "Try again later")),
    "503": (status(503), HubUnreachable, ("HTTP 503", "Try again later")),
    "504": (status(504), HubUnreachable, ("HTTP 504",)),
    "408": (status(408), HubUnreachable, ("HTTP 408",)),
    "no hub": (status(200), HubUnreachable, ("does not answer as a Hugging Face Hub does", "HF_ENDPOINT")),
    "closed": (drop(), HubUnreachable, ("broke off", "Server disconnected", "Try again later")),
    "silent": (silent(), HubUnreachable, ("does not answer", "Try again later")),
}

# ... and to each GET, whose HEAD went well.
BODIES: dict[str, Case] = {
    "500": (status(500), HubUnreachable, ("HTTP 500",)),
    "503": (status(503), HubUnreachable, ("HTTP 503",)),
    "403": (status(403), AccessDenied, ("HTTP 403",)),
    "closed": (drop(), HubUnreachable, ("broke off",)),
    "cut": (truncate(at=50_000), HubUnreachable, ("broke off",)),
    "login page": (replace(b"<html>"), HubUnreachable, ("another length", "login")),
    "silent": (silent(), HubUnreachable, ("sends nothing", "Try again later")),
}
