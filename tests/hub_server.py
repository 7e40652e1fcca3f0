"""A hub on this machine: speaks as the real one does with huggingface_hub and datasets, fails as it is told to.

With it come small repositories in the layout that the real ones are published in.
"""

import base64
import hashlib
import http.server
import io
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

BIG = 100_000  # bytes; larger files lie elsewhere (LFS), to which the hub redirects


@dataclass
class Repository:
    """`files` by path. Faults: `status` and `headers` (X_Error_Code) answer the first `times` requests (None: all);
    `slow` seconds pass before the first answer; of a body, `cut` bytes are sent, and with `ranges` off the next request
    starts anew; `html`: a page answers in place of the hub; `branch` is the only one."""

    files: Mapping[str, bytes | Path] = field(default_factory=dict)
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = None
    slow: float = 0
    cut: int | None = None
    ranges: bool = True
    html: bool = False
    branch: str = "main"

    @property
    def commit(self) -> str:
        return hashlib.sha1("".join(sorted(self.files)).encode()).hexdigest()

    def size(self, path: str) -> int:
        content = self.files[path]
        return content.stat().st_size if isinstance(content, Path) else len(content)

    def read(self, path: str, start: int) -> Iterator[bytes]:
        content = self.files[path]
        with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            file.seek(start)
            while piece := file.read(1 << 20):
                yield piece

    def entry(self, path: str) -> dict[str, Any]:
        oid = hashlib.sha1(path.encode()).hexdigest()
        return {"type": "file", "path": path, "size": self.size(path), "oid": oid}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Hub"

    def log_message(self, *args: Any) -> None:
        pass

    def answer(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def error(self, status: int, code: str, **headers: str) -> None:
        self.answer(status, X_Error_Code=code, X_Error_Message=code, **headers)

    def do_HEAD(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.requests.append(f"{self.command} {path}")
        if (taken := self.server.take(self.command, path, body, self.headers.get("Authorization"))) is not None:
            status, content = taken
            if isinstance(content, str):
                return self.error(status, content)
            return self.answer(status, json.dumps(content).encode(), Content_Type="application/json")
        found = self.server.find(path)
        if found is None:
            return self.error(404, "RepoNotFound")
        repository, kind, rest = found
        if self.fails(repository):
            return None
        if kind == "cdn":
            return self.send_file(repository, rest)
        action, _, rest = rest.partition("/")
        revision, _, rest = rest.partition("/")
        if revision and revision not in (repository.branch, repository.commit) or not revision and kind != "api":
            return self.error(404, "RevisionNotFound")
        if kind == "api":
            return self.answer_api(repository, action, rest, body)
        if rest not in repository.files:
            return self.error(404, "EntryNotFound", X_Repo_Commit=repository.commit)
        return self.send_entry(repository, rest)

    do_GET = do_POST = do_PUT = do_HEAD

    def fails(self, repository: Repository) -> bool:
        with self.server.lock:
            slow, repository.slow = repository.slow, 0
            failing = repository.status is not None and repository.times != 0
            if failing and repository.times is not None:
                repository.times -= 1
        time.sleep(slow)
        if repository.html:
            self.answer(200, b"<html><body>Log in to the hotel's network</body></html>", Content_Type="text/html")
        elif failing:
            assert repository.status is not None
            self.answer(repository.status, **repository.headers)
        return failing or repository.html

    def answer_api(self, repository: Repository, action: str, path: str, body: bytes) -> None:
        entries = [repository.entry(name) for name in sorted(repository.files)]
        folders = {str(parent) for name in repository.files for parent in Path(name).parents} - {"."}
        entries += [{"type": "directory", "path": name, "size": 0, "oid": "0" * 40} for name in sorted(folders)]
        if action == "tree":
            content: Any = [e for e in entries if not path or e["path"].startswith(f"{path}/")]
            if "recursive=true" not in self.path.lower():
                content = [e for e in content if "/" not in e["path"].removeprefix(f"{path}/" if path else "")]
        elif action == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith(b"{") else []
            asked = asked or [unquote(pair[6:]) for pair in body.decode().split("&") if pair.startswith("paths=")]
            content = [e for e in entries if e["path"] in asked]
        else:
            siblings = [{"rfilename": name} for name in repository.files]
            content = {"id": "a/b", "sha": repository.commit, "siblings": siblings, "private": False, "tags": []}
        self.answer(200, json.dumps(content).encode(), Content_Type="application/json")

    def send_entry(self, repository: Repository, path: str) -> None:
        size = str(repository.size(path))
        common = {"X_Repo_Commit": repository.commit, "ETag": f'"{hashlib.sha1((path + size).encode()).hexdigest()}"'}
        if int(size) > BIG:
            place = f"{self.server.elsewhere}/cdn{unquote(urlsplit(self.path).path)}"
            common |= {"X_Linked_Size": size, "X_Linked_ETag": common["ETag"], "Location": place}
            self.answer(302, **common)
        else:
            self.send_file(repository, path, **common)

    def send_file(self, repository: Repository, path: str, **headers: str) -> None:
        size, start = repository.size(path), 0
        if repository.ranges and (asked := self.headers.get("Range")):
            start = int(asked.removeprefix("bytes=").split("-")[0])
            headers["Content_Range"] = f"bytes {start}-{size - 1}/{size}"
        self.answer(206 if start else 200, Content_Length=str(size - start), **headers)
        if self.command == "HEAD":
            return
        left = repository.cut if repository.cut is not None else size
        for piece in repository.read(path, start):
            self.wfile.write(piece[:left])
            left -= len(piece)
            if left <= 0:
                self.close_connection = True
                break


class Hub(http.server.ThreadingHTTPServer):
    """`repositories` by address: owner/name of a model, datasets/owner/name of a data set.

    It takes uploads of the user "me" of the organisation "team", whose `tokens` have a role.
    """

    daemon_threads = True
    tokens = {"Bearer hf_write": "write", "Bearer hf_read": "read"}

    def __init__(self, repositories: dict[str, Repository], port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.repositories, self.lock = repositories, threading.Lock()
        self.requests: list[str] = []
        self.stored: dict[str, bytes] = {}  # large files, by hash
        self.full = False  # no commit is taken
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.elsewhere = f"http://localhost:{self.server_address[1]}"  # another host, as the real one's store is

    def find(self, path: str) -> tuple[Repository, str, str] | None:
        """(repository, "file", "cdn" or "api", what is asked of it)"""
        kind, path = "file", path.lstrip("/")
        if path.startswith("cdn/"):
            kind, path = "cdn", path.removeprefix("cdn/")
        elif path.startswith("api/"):
            kind, path = "api", path.removeprefix("api/").removeprefix("models/")
        for address, repository in self.repositories.items():
            if path == address or path.startswith(f"{address}/"):
                rest = path[len(address) + 1 :]
                return repository, kind, rest.split("/", 2)[2] if kind == "cdn" else rest
        return None

    def take(self, command: str, path: str, body: bytes, token: str | None) -> tuple[int, Any] | None:
        """Status and answer of what belongs to an upload; None for all else."""
        upload = re.fullmatch("/api/models/(.+?)/(auth-check/write|preupload/main|commit/main)", path)
        if path == "/api/validate-yaml":
            named = re.search('^base_model: "(.*)"$', json.loads(body)["content"], re.MULTILINE)
            wrong = named is not None and not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", named[1])
            errors = [{"message": f'"base_model" with value "{named[1]}" is not valid.'}] if named and wrong else []
            return 400 if errors else 200, {"errors": errors, "warnings": []}
        if path.startswith("/lfs/") and command == "PUT":
            self.stored[path.removeprefix("/lfs/")] = body
            return 200, {}
        if not (upload or path in ("/api/whoami-v2", "/api/repos/create") or path.endswith("/info/lfs/objects/batch")):
            return None
        if token not in self.tokens:
            return 401, "Unauthorized"
        if path == "/api/whoami-v2":
            role = {"accessToken": {"role": self.tokens[token]}}
            return 200, {"type": "user", "name": "me", "orgs": [{"name": "team"}], "auth": role}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            there = name in self.repositories
            self.repositories.setdefault(name, Repository())
            return 409 if there else 200, {"url": f"{self.address}/{name}", "id": name, "name": name}
        if upload is None:
            objects = json.loads(body)["objects"]
            actions = [{"upload": {"href": f"{self.address}/lfs/{one['oid']}"}} for one in objects]
            return 200, {"objects": [one | {"actions": act} for one, act in zip(objects, actions, strict=True)]}
        return self.take_files(*upload.groups(), body)

    def take_files(self, name: str, action: str, body: bytes) -> tuple[int, Any]:
        if name not in self.repositories:
            return 404, "RepoNotFound"
        if name.split("/")[0] not in ("me", "team"):
            return 403, "Forbidden"
        if action == "preupload/main":
            paths = [one["path"] for one in json.loads(body)["files"]]
            modes = ["lfs" if path.endswith("safetensors") else "regular" for path in paths]
            found = [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in zip(paths, modes, strict=True)]
            return 200, {"files": found}
        if action == "commit/main" and self.full:
            return 403, "Forbidden"
        files = {**self.repositories[name].files}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.repositories[name].files = files
        commit = {"commitOid": "0" * 40, "commitUrl": f"{self.address}/{name}/commit/0", "hookOutput": ""}
        return 200, commit | {"success": True}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no news."""


@contextmanager
def serving(repositories: dict[str, Repository], port: int = 0) -> Iterator[Hub]:
    hub = Hub(repositories, port)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
