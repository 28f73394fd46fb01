"""What lies elsewhere is fetched whole, once, and pinned to what was read."""

import gzip
import hashlib
import importlib.util
import json
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zip_pipeline.data_root import DataRoot
from zip_pipeline.errors import UserError
from zip_pipeline.ingest.drops import list_drops, read_drop_file
from zip_pipeline.ingest.ingest import batch_metadata, ingest_drop, read_batch
from zip_pipeline.ingest.options import ReadOptions
from zip_pipeline.ingest.remote import Fetched, fetch, files_by_split, is_address, shown
from zip_pipeline_tests.ingest.remote_servers import Answer, FileServer, GoogleStore, Hub


def rows(*names: str) -> bytes:
    """Return JSON lines that are samples."""
    return b"".join(json.dumps({"instruction": n, "output": n}).encode() + b"\n" for n in names)


def files_of(fetched: Fetched) -> list[str]:
    """Return the files of a fetched folder."""
    found = (path for path in fetched.path.rglob("*") if path.is_file())
    return sorted(str(path.relative_to(fetched.path)) for path in found)


def refusal_of(address: str, cache: Path) -> str:
    """Return why an address cannot be fetched; nothing is left behind then, nor told beside it."""
    with pytest.raises(UserError) as caught:
        fetch(address, cache)
    assert caught.value.__cause__ is caught.value.__context__ is None
    assert not cache.exists() or list(cache.iterdir()) == []
    return str(caught.value)


def test_addresses_are_told_from_paths() -> None:
    """Whatever has a scheme is an address; paths with colons are none."""
    assert is_address("hf://datasets/a/b")
    assert is_address("ftp://host/x")
    assert not any(map(is_address, ("a:b.jsonl", "/a//b.jsonl", "a/b://c", Path("s3://a/b"))))


def test_passwords_and_queries_are_not_shown() -> None:
    """A query may be a signature; in names of objects a question mark is one."""
    assert shown("https://u:p@host:1/a%20b.jsonl?X-Sig=s#t") == "https://host:1/a%20b.jsonl?…"
    assert shown("ftp://u:p@host/a") == "ftp://host/a"
    assert shown("s3://bucket/a?b") == "s3://bucket/a?b"
    with pytest.raises(UserError, match=r"^https://…: no address \(Invalid IPv6 URL\)$"):
        shown("https://u:p@[x/a")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ftp://u:p@host/x", "ftp://host/x: got ftp://; allowed are hf://, s3://, gs://, https"),
        ("hf://org/name", "hf://org/name: no address of a dataset; write hf://datasets/ORG/NAME "),
        ("hf://datasets/a/b@c:d:e", "no address of a dataset"),
    ],
)
def test_what_is_no_address_is_refused(tmp_path: Path, address: str, words: str) -> None:
    """With those that are allowed."""
    assert words in refusal_of(address, tmp_path / "cache")


@pytest.mark.parametrize(
    ("scheme", "library"), [("hf", "huggingface_hub"), ("s3", "s3fs"), ("gs", "gcsfs")]
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str, library: str
) -> None:
    """As the core is installed."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert refusal_of(f"{scheme}://a/b", tmp_path) == (
        f"{scheme}://a/b: needs {library}, which is not installed: "
        "pip install 'zip-pipeline[remote]'"
    )


_SHARDS = [
    "data/test_sft-00000-of-00001.jsonl",
    "data/train_sft-00000-of-00002.jsonl",
    "data/train_sft-00001-of-00002.jsonl",
]


@pytest.mark.parametrize(
    ("files", "subset"),
    [
        (["train.jsonl", "test.jsonl", "README.md"], {}),
        (_SHARDS, {}),
        (["train/a.jsonl", "train/b.jsonl", "dev/a.jsonl"], {}),
        (["training.jsonl", "x-valid.jsonl", "eval.jsonl", "extra.jsonl"], {}),
        (["a.jsonl", "b.jsonl"], {}),
        (["a.jsonl", "b.jsonl"], {"data_files": "a.jsonl"}),
        (["a.jsonl", "b/c.jsonl"], {"data_files": ["*.jsonl"]}),
        (["a.jsonl", "b/c.jsonl"], {"data_files": [{"split": "t", "path": "**/*.jsonl"}]}),
        (["b/test.jsonl", "c.jsonl"], {"data_dir": "b"}),
        (["b/test.jsonl", "c.jsonl"], {"data_dir": "b", "data_files": "*.jsonl"}),
        (
            _SHARDS,
            {
                "data_files": [
                    {"split": "one", "path": ["data/test*", "data/*-00000-of-00002.jsonl"]},
                    {"split": "two", "path": "data/train_sft-*"},
                ]
            },
        ),
    ],
)
def test_splits_are_those_of_datasets(
    tmp_path: Path, files: list[str], subset: dict[str, Any]
) -> None:
    """By the dataset's card, or by the names of the files."""
    datasets = pytest.importorskip("datasets")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"a": 1}\n')
    card = json.dumps({"configs": [{"config_name": "default", **subset}]} if subset else {})
    (tmp_path / "README.md").write_text(f"---\n{card}\n---\n")
    config = datasets.load_dataset_builder(str(tmp_path), cache_dir=tmp_path / ".c").config
    assert {name: sorted(found) for name, found in files_by_split(files, subset).items()} == {
        str(split): sorted(str(Path(path).relative_to(tmp_path)) for path in paths)
        for split, paths in config.data_files.items()
    }


def test_a_pattern_of_a_card_takes_no_time() -> None:
    """As a regular expression, four stars take minutes for a name that is made for them."""
    names = ["a" * 200, "a" * 199 + "b"]
    patterns = {"data_files": "*a" * 30 + "*b"}
    assert files_by_split(names, patterns) == {"train": names[1:]}
    deep = "/".join("a" * 60)
    assert files_by_split([deep], {"data_files": "**/a/" * 20 + "b"}) == {"train": []}


@pytest.mark.parametrize("data_files", [5, [[5]], {"train": {"a": 5}}, {"split": [], "path": 5}])
def test_a_card_that_names_no_files_is_refused(data_files: Any) -> None:
    """It is data, whatever it holds."""
    with pytest.raises(UserError, match=r"data_files of the dataset's card: 5 is no name of a"):
        files_by_split(["a"], {"data_files": data_files})


def test_a_drop_file_names_an_address_and_how_to_read_it(tmp_path: Path) -> None:
    """With the options of a sidecar; the sensor lists it without looking elsewhere."""
    path = tmp_path / "a.drop.toml"
    path.write_text('from = "s3://bucket/a"\nmap = { user = "q" }\nsource = "s"\n')
    options = ReadOptions(map={"user": "q"}, source="s")
    assert read_drop_file(path, "sft") == ("s3://bucket/a", options)
    assert list(list_drops(tmp_path).found) == ["a.drop.toml"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 'it names no address; write from = "hf://datasets/ORG/NAME@main:train", or another'),
        ("from = 3", "from: got 3; write from = "),
        ('from = "a.jsonl"', "from: got 'a.jsonl'; write from = "),
        ("from = s3", "not valid TOML"),
        ('from = "s3://b/a"\nfrmat = "x"', "frmat"),
        ('from = "s3://b/a"\nformat = "x"', "format"),
    ],
)
def test_a_wrong_drop_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """With its name, and what to write."""
    path = tmp_path / "a.drop.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_drop_file(path, "sft")
    assert str(caught.value).startswith(f"{path}: ")
    assert words in str(caught.value)


@pytest.mark.server
@pytest.mark.parametrize(
    ("headers", "revision"),
    [
        ({"ETag": '"e"', "Last-Modified": "Mon"}, "ETag=e"),
        ({"Last-Modified": "Mon"}, "Last-Modified=Mon"),
        ({}, f"sha256={hashlib.sha256(rows('x')).hexdigest()}"),
    ],
)
def test_a_file_of_the_web_is_pinned_by_what_the_server_tells(
    tmp_path: Path, web: FileServer, headers: Mapping[str, str], revision: str
) -> None:
    """By its content if it tells nothing; what is pinned needs no server any more."""
    web.files["/a b.jsonl"] = Answer(rows("x"), headers=headers)
    fetched = fetch(f"{web.url}/a%20b.jsonl", tmp_path)
    assert fetched.path.name == "a b.jsonl"
    assert fetched.path.read_bytes() == rows("x")
    assert fetched.origin["address"] == str(fetched) == f"{web.url}/a%20b.jsonl"
    assert fetched.origin["revision"] == revision
    web.files.clear()
    assert fetch(f"{web.url}/a%20b.jsonl", tmp_path, fetched.origin) == fetched


@pytest.mark.server
def test_a_copy_is_kept_apart_from_what_is_told_of_it(tmp_path: Path, web: FileServer) -> None:
    """Whatever the file elsewhere is called."""
    web.files["/fetched.json"] = Answer(rows("x"))
    web.files["/.."] = Answer(rows("y"))
    for end, name, content in (("fetched.json", "_fetched.json", "x"), ("%2e%2e", "_..", "y")):
        fetched = fetch(f"{web.url}/{end}", tmp_path)
        assert (fetched.name, fetched.path.read_bytes()) == (name, rows(content))


@pytest.mark.server
def test_what_did_not_change_is_fetched_once(tmp_path: Path, web: FileServer) -> None:
    """What changed is fetched beside it."""
    web.files["/a.jsonl"] = Answer(rows("x"), headers={"ETag": '"1"'})
    first, second = (fetch(f"{web.url}/a.jsonl", tmp_path) for _ in range(2))
    assert first == second
    assert web.requests["GET /a.jsonl"] == 1
    web.files["/a.jsonl"] = Answer(rows("y"), headers={"ETag": '"2"'})
    third = fetch(f"{web.url}/a.jsonl", tmp_path)
    assert [f.path.read_bytes() for f in (first, third)] == [rows("x"), rows("y")]


@pytest.mark.server
def test_credentials_reach_the_server_and_nothing_else(tmp_path: Path, web: FileServer) -> None:
    """Neither the origin nor a message nor a name in the cache tells them."""
    address = f"{web.url.replace('//', '//user:pass-word@')}/a.jsonl?sig=signature"
    told = [refusal_of(address, tmp_path)]
    web.files["/a.jsonl"] = Answer(rows("x"), missing_bytes=3)
    told += [refusal_of(address, tmp_path)]
    web.files["/a.jsonl"] = Answer(rows("x"))
    told += [str(fetch(address, tmp_path))]
    told += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(told) == 5
    assert not [text for text in told if "pass-word" in text or "signature" in text]
    assert "Basic dXNlcjpwYXNzLXdvcmQ=" in web.credentials
    # Another password is the same address, another query is not.
    renamed = address.replace("pass-word", "new")
    origins = [fetch(a, tmp_path).origin for a in (address, renamed, f"{address}2")]
    assert origins[0] == origins[1] != origins[2]


@pytest.mark.server
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(status=404), "nothing is there (404); check the address"),
        (Answer(status=403), "no access (403); give an address that may be read from here"),
        (Answer(status=500), "cannot be fetched (500); check the address, or try again later"),
        (Answer(rows("x"), missing_bytes=9), "cannot be fetched (ContentLengthError: "),
    ],
)
def test_what_the_web_does_not_give_is_told(
    tmp_path: Path, web: FileServer, answer: Answer, words: str
) -> None:
    """As typed, with what came and what to do."""
    web.files["/a.jsonl"] = answer
    assert refusal_of(f"{web.url}/a.jsonl", tmp_path).startswith(f"{web.url}/a.jsonl: {words}")


@pytest.mark.server
def test_a_server_that_is_gone_is_no_missing_file(tmp_path: Path) -> None:
    """Nobody looks for a typing error then."""
    with FileServer() as web:
        pass
    assert "cannot be fetched (ClientConnectorError" in refusal_of(f"{web.url}/a", tmp_path)


@pytest.mark.server
def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, web: FileServer) -> None:
    """It is no lack of access to the address."""
    web.files["/a.jsonl"] = Answer(rows("x"))
    (tmp_path / "cache").write_text("")
    with pytest.raises(
        UserError, match=r"a\.jsonl: no copy can be kept in .*cache \(File exists\)"
    ):
        fetch(f"{web.url}/a.jsonl", tmp_path / "cache")


class _Meeting(FileServer):
    """Answers each request when another one has come."""

    barrier = threading.Barrier(2, timeout=30)

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Wait for the other client."""
        self.barrier.wait()
        return Answer(rows("x"), headers={"ETag": '"e"'})


@pytest.mark.server
def test_two_that_fetch_the_same_at_once_have_one_copy(tmp_path: Path) -> None:
    """The one that comes second takes that of the first."""
    with _Meeting() as web, ThreadPoolExecutor(2) as both:
        found = list(both.map(fetch, [f"{web.url}/a.jsonl"] * 2, [tmp_path] * 2))
        assert web.requests["GET /a.jsonl"] == 2
    assert found[0] == found[1]
    assert [path.name for path in tmp_path.iterdir()] == [found[0].path.parent.name]


class _Restless(FileServer):
    def answer(self, path: str, query: Mapping[str, list[str]]) -> Answer:
        """Tell another ETag each time."""
        return Answer(rows("x"), headers={"ETag": f'"{self.requests.total()}"'})


@pytest.mark.server
def test_what_changes_while_it_is_fetched_is_refused(tmp_path: Path) -> None:
    """What came may be a mixture."""
    with _Restless() as web:
        assert refusal_of(f"{web.url}/a.jsonl", tmp_path).endswith(
            "a.jsonl: changed while it was fetched; try again"
        )


@pytest.mark.server
def test_an_object_of_s3_is_pinned_by_etag_or_version(tmp_path: Path, s3: Any) -> None:
    """Its name is taken as it is."""
    s3.put_object(Bucket="pool", Key="a/x#[1]?::y.jsonl", Body=rows("x"))
    fetched = fetch("s3://pool/a/x#[1]?::y.jsonl", tmp_path)
    assert fetched.path.name == "x#[1]?::y.jsonl"
    assert fetched.path.read_bytes() == rows("x")
    assert fetched.origin["revision"] == f"ETag={hashlib.md5(rows('x')).hexdigest()}"
    s3.create_bucket(Bucket="versions")
    s3.put_bucket_versioning(Bucket="versions", VersioningConfiguration={"Status": "Enabled"})
    version = s3.put_object(Bucket="versions", Key="x.jsonl", Body=rows("x"))["VersionId"]
    versioned = fetch("s3://versions/x.jsonl", tmp_path)
    assert versioned.origin["revision"] == f"VersionId={version}"


@pytest.mark.server
def test_a_folder_of_s3_is_a_folder(tmp_path: Path, s3: Any) -> None:
    """Without hidden files, and pinned by all of its files."""
    for name in ("a/x.jsonl", "a/b/y.jsonl", "a/.hidden", "ab.jsonl"):
        s3.put_object(Bucket="pool", Key=name, Body=rows(name))
    for folder in ("a/", "a/empty/"):  # as a store's console makes them
        s3.put_object(Bucket="pool", Key=folder, Body=b"")
    first = fetch("s3://pool/a", tmp_path)
    assert (first.path.name, files_of(first)) == ("a", ["b/y.jsonl", "x.jsonl"])
    assert fetch("s3://pool/a", tmp_path) == first
    s3.put_object(Bucket="pool", Key="a/b/y.jsonl", Body=rows("new"))
    second = fetch("s3://pool/a/", tmp_path)
    assert second.origin["revision"] != first.origin["revision"]
    assert (second.path / "b/y.jsonl").read_bytes() == rows("new")


@pytest.mark.server
def test_names_in_a_bucket_lead_nowhere_else(tmp_path: Path, s3: Any) -> None:
    """They are data."""
    s3.put_object(Bucket="pool", Key="a/../../x.jsonl", Body=rows("x"))
    assert refusal_of("s3://pool/a", tmp_path / "cache") == (
        "s3://pool/a: '../../x.jsonl' in it is no name for a local file; rename it"
    )


@pytest.mark.server
def test_what_s3_does_not_give_is_told(
    tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No object, no bucket, no credentials."""
    for address in ("s3://pool/none.jsonl", "s3://no-pool/a.jsonl"):
        assert (
            refusal_of(address, tmp_path) == f"{address}: nothing is there (404); check the address"
        )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    words = refusal_of("s3://pool/a.jsonl", tmp_path)
    assert words.startswith(
        "s3://pool/a.jsonl: no access (NoCredentialsError); set AWS_PROFILE, or"
    )


def test_what_is_larger_than_the_limit_is_not_fetched(
    tmp_path: Path, web: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the server tells the size, or what comes has to be counted."""
    web.files["/a.jsonl"] = Answer(b"x" * 20_000)
    bomb = gzip.compress(b"x" * 20_000)
    web.files["/b.jsonl"] = Answer(bomb, headers={"Content-Encoding": "gzip"})
    for name in ("a", "b"):
        monkeypatch.setenv("ZIP_PIPELINE_DOWNLOAD_BYTES", "10000")
        assert refusal_of(f"{web.url}/{name}.jsonl", tmp_path / name) == (
            f"{web.url}/{name}.jsonl: has more than 10,000 bytes; if it is what you want, set "
            "ZIP_PIPELINE_DOWNLOAD_BYTES higher, or name a part of it"
        )
        monkeypatch.setenv("ZIP_PIPELINE_DOWNLOAD_BYTES", "20001")
        assert fetch(f"{web.url}/{name}.jsonl", tmp_path / name).path.stat().st_size == 20_000
    monkeypatch.setenv("ZIP_PIPELINE_DOWNLOAD_BYTES", "1 GB")
    assert "got '1 GB'; allowed are whole numbers" in refusal_of(
        f"{web.url}/a.jsonl", tmp_path / "c"
    )


@pytest.mark.server
def test_a_dataset_that_is_larger_than_the_limit_is_not_fetched(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what its hub says of the files that are asked for."""
    hub.commit("org/name", {"train.jsonl": rows("a") * 1000, "test.jsonl": rows("b")})
    monkeypatch.setenv("ZIP_PIPELINE_DOWNLOAD_BYTES", "10000")
    assert "has more than 10,000 bytes" in refusal_of("hf://datasets/org/name", tmp_path / "a")
    assert fetch("hf://datasets/org/name:test", tmp_path / "b").path.is_dir()


@pytest.mark.server
def test_objects_of_google_cloud_storage_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file by its generation, a folder by those of its files."""
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    with GoogleStore() as store:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", store.url)
        store.objects |= {"a/x.jsonl": (rows("x"), 7), "a/b/y.jsonl": (rows("y"), 8)}
        fetched = fetch("gs://pool/a/x.jsonl", tmp_path / "cache")
        assert fetched.path.read_bytes() == rows("x")
        assert fetched.origin["revision"] == "generation=7"
        assert files_of(fetch("gs://pool/a", tmp_path / "cache")) == ["b/y.jsonl", "x.jsonl"]
        with pytest.raises(UserError, match=r"^gs://pool/none: nothing is there \(404\); check"):
            fetch("gs://pool/none", tmp_path / "cache")


_FILES = {
    "README.md": b"",
    ".gitattributes": b"",
    "data/train-00000-of-00001.jsonl": rows("a"),
    "data/test-00000-of-00001.jsonl": rows("b"),
}


@pytest.mark.server
def test_a_dataset_is_pinned_by_its_commit(tmp_path: Path, hub: Hub) -> None:
    """Its test split is left out, which is told; the token goes to the hub alone."""
    sha = hub.commit("org/name", _FILES)
    fetched = fetch("hf://datasets/org/name", tmp_path)
    assert (fetched.path.name, fetched.origin["revision"]) == ("name", sha)
    assert files_of(fetched) == ["README.md", "data/train-00000-of-00001.jsonl"]
    assert fetched.left_out == ("data/test-00000-of-00001.jsonl",)
    assert "Bearer secret-token" in hub.credentials
    assert "secret-token" not in json.dumps(fetched.origin)
    newer = hub.commit("org/name", {"c.jsonl": rows("c")})
    assert files_of(fetch("hf://datasets/org/name", tmp_path)) == ["c.jsonl"]
    assert fetch("hf://datasets/org/name@main", tmp_path).origin["revision"] == newer
    assert fetch(f"hf://datasets/org/name@{sha}", tmp_path).left_out == fetched.left_out


@pytest.mark.server
def test_a_split_a_folder_or_a_file_of_a_dataset_is_fetched_alone(tmp_path: Path, hub: Hub) -> None:
    """Also a split for tests, where a person asks for it; names are taken as they are."""
    hub.commit("org/name", {**_FILES, "more/[x]*.jsonl": rows("c")})
    for end, files in (
        ("@main:train", ["data/train-00000-of-00001.jsonl"]),
        (":test", ["data/test-00000-of-00001.jsonl"]),
        ("/data:test", ["data/test-00000-of-00001.jsonl"]),
        ("/more", ["more/[x]*.jsonl"]),
        ("@main/more/[x]*.jsonl", ["more/[x]*.jsonl"]),
    ):
        fetched = fetch(f"hf://datasets/org/name{end}", tmp_path)
        assert (files_of(fetched), fetched.left_out) == (files, ())


@pytest.mark.server
def test_the_card_of_a_dataset_tells_its_subsets_and_splits(tmp_path: Path, hub: Hub) -> None:
    """A split for tests is left out, whatever its files are called."""
    hub.commit("org/name", {n: rows(n) for n in ("a.jsonl", "b.jsonl", "c.jsonl")})
    main = [{"split": "train", "path": "a.jsonl"}, {"split": "test", "path": "b.jsonl"}]
    main_subset = {"config_name": "main", "data_files": main}
    hub.cards["org/name"] = {"configs": [main_subset]}
    fetched = fetch("hf://datasets/org/name", tmp_path)
    assert (files_of(fetched), fetched.left_out) == (["a.jsonl"], ("b.jsonl",))
    hub.commit("org/name", {n: rows(n) for n in ("a.jsonl", "b.jsonl", "c.jsonl")})
    hub.cards["org/name"]["configs"] += [{"config_name": "more", "data_files": "c.*"}]
    assert files_of(fetch("hf://datasets/org/name/more:train", tmp_path)) == ["c.jsonl"]
    assert files_of(fetch("hf://datasets/org/name/main", tmp_path)) == ["a.jsonl"]
    with pytest.raises(UserError, match=r"subsets main, more; name one, as in hf://datasets/org/"):
        fetch("hf://datasets/org/name", tmp_path)
    with pytest.raises(UserError, match="no file or folder none; its subsets are main, more"):
        fetch("hf://datasets/org/name/none", tmp_path)
    hub.cards["org/name"]["configs"] = [5, {"config_name": "gone", "data_files": "gone.jsonl"}]
    with pytest.raises(UserError, match="card names no file that is there"):
        fetch("hf://datasets/org/name", tmp_path)


@pytest.mark.server
def test_what_the_hub_does_not_give_is_told(tmp_path: Path, hub: Hub) -> None:
    """No dataset, revision, split or access."""
    hub.commit("org/name", _FILES)
    gated = {"X-Error-Code": "GatedRepo"}
    hub.refusals["org/gated"] = Answer(status=403, headers=gated)
    for end, words in (
        ("none", "no such dataset (404), or a private one; set HF_TOKEN then"),
        ("name@v9", "the dataset has no such revision; check what stands behind @"),
        ("name:dev", "no split 'dev'; there are test, train"),
        ("gated", "no access (403); accept the dataset's terms on the hub if it has some, and set"),
    ):
        address = f"hf://datasets/org/{end}"
        assert refusal_of(address, tmp_path).startswith(f"{address}: {words}")


@pytest.mark.server
def test_what_the_library_of_the_hub_says_loses_its_secrets(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its words hold the addresses that were asked, some of them signed."""
    import huggingface_hub

    def fail(*_: object, **__: object) -> None:
        raise OSError("cut off: https://me:pass-word@cdn.test/a?X-Amz-Signature=signed")

    hub.commit("org/name", _FILES)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    assert refusal_of("hf://datasets/org/name", tmp_path) == (
        "hf://datasets/org/name: cannot be fetched (OSError: cut off: https://cdn.test/a?…); check "
        "the address, or try again later"
    )


def _drop(root: DataRoot, address: str, more: str = "") -> str:
    path = root["sft"].raw / "a.drop.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'from = "{address}"\n{more}')
    return path.name


@pytest.mark.server
def test_a_drop_stays_at_the_revision_that_it_was_read_at(tmp_path: Path, hub: Hub) -> None:
    """Ingested again, without its copy too, it gives the same; another revision gives another."""
    root = DataRoot(tmp_path / "data")
    old = hub.commit("org/name", _FILES)
    batch = _drop(root, "hf://datasets/org/name@main")
    result = ingest_drop(root["sft"], batch)
    assert result.samples["source_file"].to_list() == ["data/train-00000-of-00001.jsonl"]
    assert result.left_out_files == ("data/test-00000-of-00001.jsonl",)
    before = batch_metadata(root["sft"], batch)
    assert json.loads(before["origin"]).items() >= {
        "address": "hf://datasets/org/name@main", "revision": old,
    }.items()  # fmt: skip
    new = hub.commit("org/name", {"train.jsonl": rows("new")})
    num_requests = hub.requests.total()
    ingest_drop(root["sft"], batch)
    assert hub.requests.total() == num_requests
    shutil.rmtree(root.cache)
    ingest_drop(root["sft"], batch)
    assert batch_metadata(root["sft"], batch) == before
    _drop(root, f"hf://datasets/org/name@{new}", 'source = "s"')
    ingest_drop(root["sft"], batch)
    assert read_batch(root["sft"], batch)["source"].to_list() == ["s"]
    assert json.loads(batch_metadata(root["sft"], batch)["origin"])["revision"] == new


@pytest.mark.server
@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {}])
def test_a_drop_whose_remote_moved_on_is_read_from_its_copy_or_refused(
    tmp_path: Path, web: FileServer, headers: Mapping[str, str]
) -> None:
    """What cannot be had any more is not replaced by what is there now."""
    root = DataRoot(tmp_path / "data")
    web.files["/a.jsonl"] = Answer(rows("old"), headers=headers)
    batch = _drop(root, f"{web.url}/a.jsonl")
    ingest_drop(root["sft"], batch)
    before = batch_metadata(root["sft"], batch)
    web.files["/a.jsonl"] = Answer(rows("new"), headers={"ETag": '"2"'} if headers else {})
    ingest_drop(root["sft"], batch)
    shutil.rmtree(root.cache)
    with pytest.raises(UserError, match=r"this drop was read at .*, and there is .* now; to read"):
        ingest_drop(root["sft"], batch)
    assert batch_metadata(root["sft"], batch) == before


@pytest.mark.server
def test_fetched_files_are_read_as_local_ones(tmp_path: Path, web: FileServer) -> None:
    """Compressed, and as tables; a sidecar counts where the drop file says nothing."""
    root = DataRoot(tmp_path / "data")
    table = tmp_path / "t.parquet"
    pl.DataFrame({"q": ["x"], "r": ["x"]}).write_parquet(table)
    web.files["/a.jsonl.gz"] = Answer(gzip.compress(rows("x")))
    web.files["/b.parquet"] = Answer(table.read_bytes())
    said = []
    for name, options in (("a.jsonl.gz", ""), ("b.parquet", 'map = {user="q", assistant="r"}')):
        batch = _drop(root, f"{web.url}/{name}", options)
        (root["sft"].raw / f"{batch}.batch.toml").write_text('source = "s"')
        said.append(ingest_drop(root["sft"], batch).samples.select("turns", "source").rows())
    assert said[0] == said[1]
    assert said[0][0][1] == "s"
