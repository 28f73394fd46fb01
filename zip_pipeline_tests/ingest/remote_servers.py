"""Small servers on loopback: files of the web, a hub of datasets, and an object store."""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from zip_pipeline_tests.loopback import LoopbackServer


@dataclass(frozen=True)
class Answer:
    """What the server says to a request."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    missing_bytes: int = 0


def as_json(value: object) -> Answer:
    """Answer with JSON."""
    return Answer(json.dumps(value).encode(), headers={"Content-Type": "application/json"})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    files: "FileServer"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.files.requests[f"{self.command} {url.path}"] += 1
        self.files.credentials.append(self.headers.get("Authorization", ""))
        answer = self.files.answer(unquote(url.path), parse_qs(url.query))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body) + answer.missing_bytes))
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):  # some ask and do not listen
                self.wfile.write(answer.body)
        self.close_connection = bool(answer.missing_bytes)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Stay silent."""


class FileServer(LoopbackServer):
    """Serves ``files`` by path; use it in a ``with`` block, at whose end it stops."""

    def __init__(self) -> None:
        self.files: dict[str, Answer] = {}
        self.requests: Counter[str] = Counter()
        self.credentials: list[str] = []
        super().__init__(type("Handler", (_Handler,), {"files": self}))
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Return the file of a path."""
        return self.files.get(path, Answer(status=404))


class Hub(FileServer):
    """A hub of datasets: commits of files, of which ``main`` is the last."""

    def __init__(self) -> None:
        super().__init__()
        self._commits: dict[str, dict[str, Mapping[str, bytes]]] = {}
        self.cards: dict[str, dict[str, Any]] = {}
        self.refusals: dict[str, Answer] = {}

    def commit(self, repo: str, files: Mapping[str, bytes]) -> str:
        """Make these all files of a dataset; return the commit."""
        commits = self._commits.setdefault(repo, {})
        sha = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()
        commits[sha] = files
        return sha

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Speak as much of the hub's protocol as ``huggingface_hub`` needs to fetch files."""
        api, is_resolved = path.startswith("/api/"), "/resolve/" in path
        if not path.removeprefix("/api").startswith("/datasets/"):
            return Answer(status=404)
        parts = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        repo, verb, revision, name = "/".join(parts[:2]), parts[2], parts[3], "/".join(parts[4:])
        if refusal := self.refusals.get(repo):
            return refusal
        if not (commits := self._commits.get(repo)):
            return Answer(status=404, headers={"X-Error-Code": "RepoNotFound"})
        sha = list(commits)[-1] if revision == "main" else revision
        if sha not in commits:
            return Answer(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        files = commits[sha]
        if api and verb == "revision":
            return as_json({"id": repo, "sha": sha, "cardData": self.cards.get(repo, {})})
        if api and verb == "tree":
            return as_json([_tree_entry(name, content) for name, content in files.items()])
        if is_resolved and name in files:
            etag = f'"{hashlib.sha1(files[name]).hexdigest()}"'
            return Answer(files[name], headers={"ETag": etag, "X-Repo-Commit": sha})
        return Answer(status=404, headers={"X-Error-Code": "EntryNotFound"})


def _tree_entry(name: str, content: bytes) -> dict[str, object]:
    oid = hashlib.sha1(content).hexdigest()
    return {"type": "file", "oid": oid, "size": len(content), "path": name}


class GoogleStore(FileServer):
    """A bucket ``pool`` of Google Cloud Storage, by its JSON interface."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[str, tuple[bytes, int]] = {}

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Describe, list or send objects."""
        name = path.partition("/b/pool/o")[2].lstrip("/")
        if not name:
            prefix = query.get("prefix", [""])[0]
            found = [self._describe(n) for n in sorted(self.objects) if n.startswith(prefix)]
            return as_json({"items": found})
        if name not in self.objects:
            return Answer(status=404)
        return Answer(self.objects[name][0]) if "alt" in query else as_json(self._describe(name))

    def _describe(self, name: str) -> dict[str, str]:
        content, generation = self.objects[name]
        size, etag = str(len(content)), f"e{generation}"
        about = {"name": name, "bucket": "pool", "size": size, "etag": etag}
        return about | {"generation": str(generation)}
