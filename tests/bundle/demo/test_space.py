"""The Space: its files, and its app as the Hub would start it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
import yaml

pytest.importorskip("gradio", reason="the extra `demo` is not installed")

from rectune.cli import main
from tests.hub import TOKEN, Hub

REPO = "anna/tea-shop"
pytestmark = pytest.mark.heavy


def test_a_space_carries_the_page_and_starts(
    hub: Hub, shop_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(shop_run), REPO, "--license", "mit", "--space", "--traceback"]) == 0
    assert f"its page: {hub.url}/spaces/{REPO}" in capsys.readouterr().out
    space = hub.repositories[f"spaces/{REPO}"]
    assert space.private
    files = space.commits[space.refs["main"]]
    front = yaml.safe_load(files["README.md"].decode().split("---")[1])
    assert (front["sdk"], front["app_file"], front["models"], front["license"]) == ("gradio", "app.py", [REPO], "mit")
    needed = files["requirements.txt"].decode().splitlines()
    assert any(line.startswith("torch==2.") and "+" not in line for line in needed)
    assert any(line.startswith("transformers==") for line in needed)
    (wheel,) = [name for name in files if name.endswith(".whl")]
    inside = zipfile.ZipFile(BytesIO(files[wheel])).namelist()
    assert {
        "rectune/bundle/demo/page.py",
        "rectune/templates/next-item.jinja",
        "rectune/data_builders/table.py",
    } <= set(inside)
    for name, held in files.items():
        (tmp_path / name).write_bytes(held)
    port = 7860 + os.getpid() % 500
    app = (tmp_path / "app.py").read_text().replace("7860", str(port))
    (tmp_path / "app.py").write_text(app)
    environment = {
        **os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until, said = time.monotonic() + 60, ""
        while time.monotonic() < until and process.poll() is None and "shop" not in said:
            with contextlib.suppress(OSError):
                said = urllib.request.urlopen(f"http://127.0.0.1:{port}/config").read().decode()
            time.sleep(0.2)
        assert '"title":"rectune: shop"' in said.replace(": ", ":").replace('"rectune:shop"', '"rectune: shop"'), (
            process.poll()
        )
    finally:
        process.kill()
        process.communicate()
