"""Checkpoints of the hub: its own client runs, only what would go out to the network is ours."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch", reason="export tests need torch: pip install '.[export]'")

import requests
from huggingface_hub import constants
from urllib3 import HTTPResponse

from stream_judge.errors import ExportError
from stream_judge.export.checkpoint import resolve

NAME, COMMIT = "owner/name", "0123456789abcdef0123456789abcdef01234567"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "preprocessor_config.json": b"{}",
    "model.safetensors": b"weights",
    "pytorch_model.bin": b"not wanted",
}
Send = Callable[[requests.PreparedRequest], requests.Response]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Send], None]:
    """Answers every request by a function; snapshots go to a folder of the test."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    # It tries again by itself, after seconds.
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(sleep=lambda _: None))

    def answer_by(send: Send) -> None:
        monkeypatch.setattr(
            requests.adapters.HTTPAdapter, "send", lambda _, request, **__: send(request)
        )

    return answer_by


def answer(
    request: requests.PreparedRequest, status: int, content: bytes = b"", **headers: str
) -> requests.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    named |= {"Content-Length": str(len(content))}
    body = io.BytesIO(b"" if request.method == "HEAD" else content)
    raw = HTTPResponse(
        body, headers=named, status=status, preload_content=False, request_method=request.method
    )
    return requests.adapters.HTTPAdapter().build_response(request, raw)


def serve(request: requests.PreparedRequest) -> requests.Response:
    """A hub that has the checkpoint."""
    path = str(request.path_url).partition("?")[0]
    if path.startswith("/api/models/"):
        listed = [{"rfilename": name} for name in FILES]
        content = {"id": NAME, "sha": COMMIT, "siblings": listed}
        return answer(request, 200, json.dumps(content).encode())
    name = path.rpartition("/")[2]
    return answer(request, 200, FILES[name], X_Repo_Commit=COMMIT, ETag=f'"{name}"')


def unreachable(request: requests.PreparedRequest) -> requests.Response:
    raise requests.ConnectionError("Name or service not known", request=request)


def slow(request: requests.PreparedRequest) -> requests.Response:
    raise requests.ReadTimeout("timed out", request=request)


def broken_off(request: requests.PreparedRequest) -> requests.Response:
    """The list comes, the weights do not."""
    if request.method == "GET" and str(request.path_url).endswith(".safetensors"):
        raise requests.ConnectionError("Connection reset by peer", request=request)
    return serve(request)


def refusing(status: int, code: str) -> Send:
    return lambda request: answer(request, status, b"{}", X_Error_Code=code)


def test_a_hub_id_is_downloaded_as_far_as_an_export_needs_it(hub: Callable[[Send], None]) -> None:
    hub(serve)
    folder = resolve(NAME)
    assert {path.name for path in folder.iterdir()} == set(FILES) - {"pytorch_model.bin"}
    assert (folder / "model.safetensors").read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("send", "said"),
    [
        (refusing(404, "RepoNotFound"), "404"),
        # So the hub answers whoever has no account.
        (refusing(401, ""), "401"),
        (refusing(403, "GatedRepo"), "403"),
        (refusing(503, ""), "503"),
        (lambda request: answer(request, 200, b"<html>log in</html>"), "Expecting value"),
        (unreachable, "Name or service not known"),
        (slow, "timed out"),
        (broken_off, "Connection reset by peer"),
    ],
    ids=["unknown", "no account", "gated", "out", "portal", "unreachable", "slow", "broken off"],
)
def test_what_the_hub_does_not_give_is_one_error_with_its_id(
    hub: Callable[[Send], None], send: Send, said: str
) -> None:
    hub(send)
    with pytest.raises(ExportError) as problem:
        resolve(NAME)
    begins = f"{NAME}: no such folder, and the hub did not give it: "
    # One line, with the reason.
    assert re.fullmatch(f"{begins}.*({said}).*", problem.value.message)


@pytest.mark.parametrize("name", ["owner/na me", "owner/name--x", "-owner/name", "owner/name.git"])
def test_an_id_that_no_model_can_have_is_said_without_asking(
    hub: Callable[[Send], None], name: str
) -> None:
    hub(lambda request: pytest.fail(f"asked {request.url}"))
    with pytest.raises(ExportError, match="the hub did not give it"):
        resolve(name)


@pytest.mark.parametrize("name", ["llava", "./llava", "../a/b", "/a", "a/b/c"])
def test_a_folder_that_is_not_there_is_no_hub_id(hub: Callable[[Send], None], name: str) -> None:
    hub(lambda request: pytest.fail(f"asked {request.url}"))
    with pytest.raises(ExportError, match=r"no such folder, and not a hub id \(owner/name\)"):
        resolve(name)
