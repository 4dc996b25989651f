"""A Space of the Hub that shows the page of a repository; it carries rectune itself, as that is on no package index yet."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import rectune

APP = '''"""The page of {repo}: rectune is unpacked from the wheel beside this file."""

import sys
import tempfile
import zipfile
from pathlib import Path

(wheel,) = Path(__file__).parent.glob("rectune-*.whl")
unpacked = tempfile.mkdtemp()
zipfile.ZipFile(wheel).extractall(unpacked)
sys.path.insert(0, unpacked)

from rectune import Recommender  # noqa: E402
from rectune.bundle.demo.page import launch  # noqa: E402

launch(Recommender.from_pretrained("{repo}"), host="0.0.0.0", port={port})
'''
README = """---
title: {title}
sdk: gradio
sdk_version: {gradio}
python_version: "3.12"
app_file: app.py
license: {licence}
models: [{repo}]
---

What `{repo}` recommends, made by rectune. A private model needs the secret `HF_TOKEN` with a token that may read it.
"""
PORT = 7860


def check_space() -> str:
    """The version of Gradio that the page is made with. Raises ImportError where it is not installed."""
    gradio = _version("gradio")
    if gradio is None:
        raise ImportError(
            "`--space` names the version of Gradio that the page is made with. Type `pip install 'rectune[demo]'`."
        )
    return gradio


def write_space(folder: Path, repo: str, licence: str) -> None:
    """Write the files of a Space into an empty folder. Raises OSError where no wheel can be made."""
    gradio = check_space()
    (folder / "app.py").write_text(APP.format(repo=repo, port=PORT), encoding="utf-8")
    (folder / "requirements.txt").write_text("\n".join(requirements()) + "\n", encoding="utf-8")
    title = repo.rpartition("/")[2]
    (folder / "README.md").write_text(
        README.format(title=title, gradio=gradio, licence=licence, repo=repo), encoding="utf-8"
    )
    write_wheel(folder)


def push_space(api: Any, repo: str, licence: str, *, private: bool) -> str:
    """Put the Space of a repository beside it, under the same name; returns where it is."""
    with tempfile.TemporaryDirectory(prefix="rectune-space-") as temporary:
        folder = Path(temporary)
        write_space(folder, repo, licence)
        api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        check_visibility(api, repo, public=not private, kind="space")
        api.upload_folder(
            repo_id=repo,
            repo_type="space",
            folder_path=folder,
            commit_message=f"The page of {repo}",
            delete_patterns=["rectune-*.whl"],
        )
    return f"{api.endpoint}/spaces/{repo}"


def check_visibility(api: Any, repo: str, *, public: bool, kind: str = "model") -> None:
    """Raise ValueError where a repository is there already and is not as private or public as was asked."""
    private = bool(api.repo_info(repo, repo_type=kind).private)
    if private == public:
        now, said = ("private", "leave --public out") if private else ("public", "give --public if all may read it")
        raise ValueError(
            f"the {kind} repository `{repo}` is {now} already: {said}, or change it on the Hub first. Nothing was sent."
        )


def requirements() -> list[str]:
    """What rectune needs, in the versions that are here."""
    names = [
        re.split(r"[ <>=!~;\[(]", line)[0]
        for line in importlib.metadata.requires("rectune") or []
        if "extra ==" not in line
    ]
    found = {name: _version(name) for name in names}
    return [f"{name}=={version.partition('+')[0]}" for name, version in found.items() if version is not None]


def write_wheel(folder: Path) -> Path:
    """A wheel of the rectune that runs here: built where its source is there, else put together from what is installed."""
    source = Path(rectune.__file__).parent.parent
    if (source / "pyproject.toml").exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(folder),
            str(source),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().rpartition("\n")[2][:200] or "pip failed"
            raise OSError(f"no wheel of rectune could be built ({said}).")
        return next(folder.glob("rectune-*.whl"))
    files = importlib.metadata.files("rectune") or []
    place = folder / f"rectune-{rectune.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as wheel:
        for file in files:
            if (
                ".." not in file.parts
                and file.suffix != ".pyc"
                and file.name != "direct_url.json"
                and Path(str(file.locate())).is_file()
            ):
                wheel.write(str(file.locate()), file.as_posix())
    return place


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
