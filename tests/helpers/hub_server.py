"""A Hugging Face Hub for tests, on 127.0.0.1: the part of its HTTP API that downloads and uploads of models use.

It imitates, for model repositories: resolve (HEAD, GET, Range, redirect to another origin), model_info, tree,
paths-info, refs, whoami, create, validate-yaml, preupload, LFS batch / upload / verify, commit, tag. Errors
carry `X-Error-Code` and `X-Error-Message`, by which huggingface_hub tells them apart. There is no Xet.

    with TestHub() as hub:
        hub.store.add_user("hf_writer", "ann", "org")
        commit = hub.store.add_repo("org/b0", {"model.safetensors": data})
        hub.fail(status(503), method="HEAD", times=2)
        ... HF_ENDPOINT is hub.url ...
        hub.requests  # what was asked
"""

from __future__ import annotations

import re
import threading
from types import TracebackType

from hub_api import FileHandler, HubHandler
from hub_faults import Fault, FaultPlan
from hub_http import Request, Site
from hub_store import HubStore


class TestHub:
    """The Hub and, on a second port, the file store that it redirects to."""

    __test__ = False  # not a test case, whatever its name says

    def __init__(self) -> None:
        self.store = HubStore()
        self.faults = FaultPlan()
        self.released = threading.Event()  # ends the waiting of silent and stalled answers
        self.main = Site(self, HubHandler)
        self.files = Site(self, FileHandler)
        self.reset()

    @property
    def url(self) -> str:
        return self.main.url

    @property
    def requests(self) -> list[Request]:
        return self.main.requests

    @property
    def file_requests(self) -> list[Request]:
        """What the second origin was asked."""
        return self.files.requests

    def count(self, method: str, pattern: str = "") -> int:
        """How many requests with this method had `pattern` (a regular expression) in their path, at both sites."""
        asked = [*self.requests, *self.file_requests]
        return sum(request.method == method and bool(re.search(pattern, request.path)) for request in asked)

    def fail(self, fault: Fault, method: str = "*", path: str = "*", times: float = float("inf")) -> Fault:
        """Apply `fault` to the next `times` requests that match."""
        return self.faults.add(fault, method, path, times)

    def reset(self) -> None:
        """Forget everything; be up."""
        self.released.set()
        self.released = threading.Event()
        self.store.clear()
        self.faults.clear()
        self.redirect = False  # whether LFS files are served by the second origin
        for site in (self.main, self.files):
            site.up()
            site.requests.clear()

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        self.released.set()
        self.main.down()
        self.files.down()

    def up(self) -> None:
        self.released = threading.Event()
        self.main.up()
        self.files.up()

    def __enter__(self) -> TestHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()
