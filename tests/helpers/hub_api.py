"""The routes of the test Hub: one method for each endpoint of the Hub's API that the client uses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

import yaml
from hub_http import Handler
from hub_store import HubError, Repo, entry, is_lfs, object_id, sibling

if TYPE_CHECKING:
    from hub_server import TestHub

REPO = r"(?P<repo>[^/]+/[^/]+)"
ROUTES: list[tuple[str, str, str]] = [
    ("HEAD|GET", rf"/{REPO}/resolve/(?P<path>.+)", "resolve"),
    ("GET", r"/api/whoami-v2", "whoami"),
    ("GET", rf"/api/models/{REPO}", "info"),
    ("GET", rf"/api/models/{REPO}/revision/(?P<revision>.+)", "info"),
    ("GET", rf"/api/models/{REPO}/tree/(?P<path>.+)", "tree"),
    ("POST", rf"/api/models/{REPO}/paths-info/(?P<revision>.+)", "paths_info"),
    ("GET", rf"/api/models/{REPO}/refs", "refs"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>.+)", "preupload"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs-upload/(?P<oid>\w+)", "lfs_put"),
    ("POST", rf"/{REPO}/lfs-verify", "lfs_verify"),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>.+)", "commit"),
    ("POST", rf"/api/models/{REPO}/tag/(?P<revision>.+)", "tag"),
]


class HubHandler(Handler):
    """The Hub itself: one method for each route."""

    def respond(self, authorization: str | None) -> None:
        self.hub = cast("TestHub", self.server.site.backend)
        self.store = self.hub.store
        self.user = self.store.user_of(authorization)
        for methods, pattern, action in ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and re.fullmatch(methods, self.command):
                handle: Callable[..., None] = getattr(self, action)
                handle(**match.groupdict())
                return
        raise HubError(404, message="Sorry, we can't find the page you are looking for.")

    def _split_revision(self, repo: Repo, rest: str) -> tuple[str, str]:
        """Split `revision/path`: revisions may hold slashes (refs/pr/1), so known ones are tried first."""
        for revision in (*repo.branches, *repo.tags, *repo.commits):
            if rest == revision or rest.startswith(f"{revision}/"):
                return repo.resolve(revision), rest[len(revision) + 1 :]
        return repo.resolve(rest.split("/")[0]), ""

    def resolve(self, repo: str, path: str) -> None:
        stored = self.store.downloadable(repo, self.user)
        commit, file = self._split_revision(stored, path)
        headers = {"X-Repo-Commit": commit}
        data = stored.commits[commit].get(file)
        if data is None:
            raise HubError(404, "EntryNotFound", "Entry not found", headers)
        etag = f'"{object_id(file, data)}"'
        headers["ETag"] = etag
        if is_lfs(file):
            headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(len(data))}
        if is_lfs(file) and self.hub.redirect:
            self.reply(302, b"", headers | {"Location": f"{self.hub.files.url}/lfs/{object_id(file, data)}"})
        else:
            self.reply_file(data, headers)

    def whoami(self) -> None:
        if self.user is None:
            raise HubError(401, message="Invalid username or password.")
        orgs = [{"name": name, "roleInOrg": "write"} for name in self.user.writes_to]
        token = {"type": "access_token", "accessToken": {"role": self.user.role, "displayName": "test"}}
        self.reply_json({"type": "user", "name": self.user.name, "orgs": orgs, "auth": token})

    def info(self, repo: str, revision: str = "main") -> None:
        stored = self.store.readable(repo, self.user)
        commit = stored.resolve(revision)
        files = stored.commits[commit]
        blobs = self.query.get("blobs", [""])[0].lower() in ("true", "1")
        readme = files.get("README.md", b"").decode()
        self.reply_json(
            {
                "id": repo,
                "modelId": repo,
                "author": repo.split("/")[0],
                "sha": commit,
                "private": stored.private,
                "gated": "auto" if stored.gated else False,
                "disabled": False,
                "tags": [],
                "cardData": front_matter(readme) or {},
                "siblings": [sibling(path, data, blobs) for path, data in sorted(files.items())],
            }
        )

    def tree(self, repo: str, path: str) -> None:
        stored = self.store.downloadable(repo, self.user)
        commit, folder = self._split_revision(stored, path)
        prefix = f"{folder}/" if folder else ""
        inside = {path: data for path, data in sorted(stored.commits[commit].items()) if path.startswith(prefix)}
        if folder and not inside:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist", {"X-Repo-Commit": commit})
        recursive = self.query.get("recursive", [""])[0].lower() in ("true", "1")
        names = {path[len(prefix) :].split("/")[0] for path in inside if "/" in path[len(prefix) :]}
        folders = [{"type": "directory", "path": prefix + name, "size": 0, "oid": "0" * 40} for name in sorted(names)]
        files = [entry(path, data) for path, data in inside.items() if recursive or "/" not in path[len(prefix) :]]
        self.reply_json(folders + files)

    def paths_info(self, repo: str, revision: str) -> None:
        stored = self.store.readable(repo, self.user)
        files = stored.commits[stored.resolve(revision)]
        if self.headers.get("Content-Type", "").startswith("application/json"):
            wanted = json.loads(self.body)["paths"]
        else:
            wanted = parse_qs(self.body.decode()).get("paths", [])
        self.reply_json([entry(path, files[path]) for path in wanted if path in files])

    def refs(self, repo: str) -> None:
        stored = self.store.readable(repo, self.user)
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c} for n, c in stored.branches.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": c} for n, c in stored.tags.items()]
        self.reply_json({"branches": branches, "tags": tags, "converts": []})

    def create(self) -> None:
        asked = json.loads(self.body)
        if self.user is None:
            raise HubError(401, message="Invalid username or password.")
        name = f"{asked.get('organization') or self.user.name}/{asked['name']}"
        self.store.check_writer(name, self.user)
        url = f"{self.hub.url}/{name}"
        if name in self.store.repos:
            message = "You already created this model repo"
            self.reply_json({"error": message, "url": url}, 409, {"X-Error-Message": message})
            return
        self.store.add_repo(name, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        self.reply_json({"url": url, "name": name, "id": name})

    def validate(self) -> None:
        try:
            card = front_matter(json.loads(self.body)["content"])
        except yaml.YAMLError as error:
            self.reply_json({"errors": [{"message": f"bad YAML: {error}"}], "warnings": []}, 400)
            return
        missing = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
        wrong = (
            [{"message": '"license" must be a string'}] if not isinstance((card or {}).get("license", ""), str) else []
        )
        self.reply_json({"errors": wrong, "warnings": missing}, 400 if wrong else 200)

    def preupload(self, repo: str, revision: str) -> None:
        stored = self.store.writable(repo, self.user)
        files = stored.commits[stored.resolve(revision)]
        self.reply_json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if is_lfs(file["path"]) else "regular",
                        "shouldIgnore": False,
                        "oid": object_id(file["path"], files[file["path"]]) if file["path"] in files else None,
                    }
                    for file in json.loads(self.body)["files"]
                ]
            }
        )

    def lfs_batch(self, repo: str) -> None:
        self.store.writable(repo, self.user)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.store.lfs:
                answer["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs-upload/{wanted['oid']}"},
                    "verify": {"href": f"{self.hub.url}/{repo}/lfs-verify"},
                }
            objects.append(answer)
        self.reply_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        self.store.lfs[oid] = self.fault.change(self.body)
        self.reply(200, b"", {"ETag": f'"{hashlib.md5(self.body).hexdigest()}"'})

    def lfs_verify(self, repo: str) -> None:
        asked = json.loads(self.body)
        stored = self.store.lfs.get(asked["oid"])
        if stored is None or len(stored) != asked["size"]:
            raise HubError(404, message="the object was not uploaded")
        self.reply_json({})

    def commit(self, repo: str, revision: str) -> None:
        stored = self.store.writable(repo, self.user)
        head = stored.resolve(revision)
        files = dict(stored.commits[head])
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header" and value.get("parentCommit", head) != head:
                raise HubError(412, message="A commit has happened since. Please refresh and try again.")
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.store.lfs:
                    raise HubError(400, message=f"LFS object {value['oid']} was not uploaded")
                files[value["path"]] = self.store.lfs[value["oid"]]
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    raise HubError(404, "EntryNotFound", "A file with this name doesn't exist")
            elif key == "deletedFolder":
                prefix = value["path"].rstrip("/") + "/"
                files = {path: data for path, data in files.items() if not path.startswith(prefix)}
        oid = stored.commit(files, revision)
        self.reply_json({"success": True, "commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid})

    def tag(self, repo: str, revision: str) -> None:
        stored = self.store.writable(repo, self.user)
        name = json.loads(self.body)["tag"]
        if name in stored.tags:
            raise HubError(409, message=f"Tag reference exists already: {name}")
        stored.tags[name] = stored.resolve(revision)
        self.reply_json({})


def front_matter(readme: str) -> dict[str, Any] | None:
    """The metadata block of a README; None if it has none."""
    match = re.match(r"---\s*\n(.*?)\n---", readme, re.DOTALL)
    content = yaml.safe_load(match[1]) if match else None
    return content if isinstance(content, dict) else None


class FileHandler(Handler):
    """The second origin: LFS objects by their sha256, for whoever knows the address."""

    def respond(self, authorization: str | None) -> None:
        hub = cast("TestHub", self.server.site.backend)
        wanted = self.route.removeprefix("/lfs/")
        for repo in hub.store.repos.values():
            for files in repo.commits.values():
                for path, data in files.items():
                    if is_lfs(path) and object_id(path, data) == wanted:
                        self.reply_file(data, {"ETag": f'"{wanted}"'})
                        return
        raise HubError(404, message="no such object")
