"""The images: built for a Raspberry Pi, started as its processor, and asked for tokens.

`build.sh` runs each image that it has made once, under emulation where need be. Skipped where no
docker answers: a container in which these tests may run has none.
"""

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from model.baked.source import model_card
from model.names import default_model
from scripts.imports import modules, reached
from tests.fake_hub import fake_hub

ROOT = Path(__file__).parents[1]
TAG = "test"
# Bytes beside the model.
LIMITS = {"generate": 200e6, "tokenize": 150e6, "ui": 300e6}


def build(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "build.sh", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=1500,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--arch", "riscv"], "arm64 and amd64, not for riscv"),
        (["--bits", "5"], "--bits is 8 or 4, not 5"),
        (["--model"], "--model needs a value"),
        (["--warp"], "no option --warp"),
        (["--overlay", "moon"], "no knative/overlays/moon"),
        (["--with", "helm"], "kubectl or kn, not helm"),
    ],
)
def test_wrong_usage_is_a_sentence(arguments: list[str], said: str) -> None:
    done = build(*arguments)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_docker_it_says_what_to_install(tmp_path: Path) -> None:
    for name in ("bash", "git", "sed", "dirname", "uname", "env"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    done = build(PATH=str(tmp_path))
    assert done.returncode == 1
    assert "install docker.io or podman" in done.stderr


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with a build.sh of its own, and in bin/ a docker that only notes its work."""
    folder = tmp_path / "pibloom"
    folder.mkdir()
    for name in (".venv", "knative", "model", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "build.sh", folder)
    (folder / "bin").mkdir()
    program(
        folder / "bin" / "docker",
        """
        case $1 in image) echo 1000000 ;; context) echo the-daemon ;; esac
        echo "$BUILDX_BUILDER" "$@" >>"$0.log"
        """,
    )
    return folder


def program(path: Path, script: str) -> None:
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def build_in(checkout: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    (checkout / "bin" / "docker.log").unlink(missing_ok=True)
    return subprocess.run(
        [checkout / "build.sh", "--no-check", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": f"{checkout}/bin:{os.environ['PATH']}"},
        timeout=300,
    )


@pytest.fixture
def staged(checkout: Path) -> Callable[[Path], tuple[bytes, bytes]]:
    """Run `build.sh --model` without docker; return what images get."""

    def stage(model: Path) -> tuple[bytes, bytes]:
        done = build_in(checkout, "--model", model)
        assert done.returncode == 0, done.stderr
        log = (checkout / "bin" / "docker.log").read_text()
        weights, tokenizer = (checkout / path for path in re.findall(r"MODEL=(\S+)", log))
        assert list(weights.parent.iterdir()) == [weights]
        assert list(tokenizer.parent.iterdir()) == [tokenizer]
        return weights.read_bytes(), tokenizer.read_bytes()

    return stage


def test_the_daemon_that_has_the_base_builds(checkout: Path) -> None:
    """A builder in a container, which `docker buildx use` may have chosen, sees no local image."""
    assert build_in(checkout).returncode == 0
    log = (checkout / "bin" / "docker.log").read_text()
    builds = [line for line in log.splitlines() if " buildx build " in line]
    assert builds
    assert all(line.startswith("the-daemon ") for line in builds)


def test_two_builds_at_once_do_not_mix(checkout: Path) -> None:
    (checkout / "build").mkdir()
    with (checkout / "build" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = build_in(checkout)
    assert done.returncode == 1
    assert "another build.sh is at work" in done.stderr


@pytest.mark.parametrize(
    ("http", "https", "asked"), [(200, 0, "http"), (401, 0, "http"), (308, 401, "https")]
)
def test_a_redirect_is_no_registry(checkout: Path, http: int, https: int, asked: str) -> None:
    program(
        checkout / "bin" / "curl",
        f"""
        case "$*" in
          *http://*/v2/) echo {http} ;; *https://*/v2/) echo {https} ;;
          *{asked}://*/manifests/*) echo "Docker-Content-Digest: sha256:1234" ;;
        esac
        """,
    )
    done = build_in(checkout, "--push")
    assert done.returncode == 0, done.stderr
    deployed = (checkout / "build" / "deploy" / "kustomization.yaml").read_text()
    assert deployed.count("digest: sha256:1234") == 3


def test_it_waits_for_the_new_revision(checkout: Path) -> None:
    """A Ready that was said of the former one, and a generation read later, are no answer."""
    answer = 'case "$*" in */v2/) echo 200 ;; *) echo "Docker-Content-Digest: sha256:1" ;; esac'
    program(checkout / "bin" / "curl", answer)
    program(
        checkout / "bin" / "kubectl",
        """
        case "$*" in
          *serving.knative.dev/*status.url*) echo http://generate.example ;;
          *serving.knative.dev/*)
            of=2=2 is=True
            case "$*" in *dev/generate*)
              now=$(cat "$0.now" 2>/dev/null || echo 0)
              echo $((now + 1)) >"$0.now"
              case $now in 0) of=2=1 ;; 1) is=Unknown ;; esac ;;
            esac
            case "$*" in
              *eneration*Ready*) echo $of $is ;; *Ready*) echo $is ;; *) echo $of ;;
            esac ;;
        esac
        """,
    )
    done = build_in(checkout, "--deploy")
    assert done.returncode == 0, done.stderr
    assert (checkout / "bin" / "kubectl.now").read_text() == "3\n"
    assert done.stdout.count("http://generate.example") == 3


def changed_checkpoint(folder: Path, merges: int) -> Path:
    """Return a copy of the demo model, under the same name, with fewer merges and another norm."""
    copy = folder / "bloom"
    shutil.copytree(ROOT / "model" / "demo" / "checkpoint", copy)
    tokenizer = json.loads((copy / "tokenizer.json").read_text())
    del tokenizer["model"]["merges"][-merges:]
    (copy / "tokenizer.json").write_text(json.dumps(tokenizer))
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1 - merges] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    return copy


def test_a_model_of_the_same_name_is_not_mistaken(
    tmp_path: Path, staged: Callable[[Path], tuple[bytes, bytes]]
) -> None:
    """Folders and files; the older one later, which time alone cannot tell; a changed folder."""
    one = changed_checkpoint(tmp_path / "one", 1)
    two = changed_checkpoint(tmp_path / "two", 2)
    for path in one.iterdir():
        os.utime(path, (1, 1))
    second, first = staged(two), staged(one)
    assert first[0] != second[0]
    assert first[1] != second[1]
    assert staged(two) == second
    shutil.copy(two / "tokenizer.json", one / "tokenizer.json")
    assert staged(one)[1] == second[1]
    for folder, (weights, _) in ((one, first), (two, second)):
        (folder.parent / "model.bloom").write_bytes(weights)
    assert staged(one.parent / "model.bloom") == first
    assert staged(two.parent / "model.bloom") == second


def test_a_model_may_be_a_link(
    tmp_path: Path, staged: Callable[[Path], tuple[bytes, bytes]]
) -> None:
    folder = tmp_path / "folder"
    folder.symlink_to(changed_checkpoint(tmp_path / "real", 1))
    baked = staged(folder)
    (tmp_path / "real" / "model.bloom").write_bytes(baked[0])
    file = tmp_path / "link.bloom"
    file.symlink_to("real/model.bloom")
    assert staged(file) == baked


def test_a_model_may_be_a_name_on_the_hub(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "bigscience/bloomz-560m"
    for variable in ("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with fake_hub({name: default_model()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        nowhere = build_in(checkout, "--model", "bigscience/blom-560m")
        assert nowhere.returncode == 3
        assert nowhere.stderr.startswith("pibloom: there is no model bigscience/blom-560m on the")
        assert nowhere.stderr.count("\n") == 1
        for given in (name, f"{name}@{hub.commit}"):
            asked = len(hub.asked)
            done = build_in(checkout, "--model", given)
            assert done.returncode == 0, done.stderr
            log = (checkout / "bin" / "docker.log").read_text()
            weights, tokenizer = (checkout / path for path in re.findall(r"MODEL=(\S+)", log))
            assert weights.name == "bloomz-560m-w8.bloom"
            for file in (weights, tokenizer):
                card = model_card(file)
                assert (card.name, card.revision) == ("bloomz-560m", hub.commit)
        assert len(hub.asked) == asked, "what is here was asked for again"


@pytest.mark.parametrize("model", ["../nowhere/else", "a/../b", "/a/b", "nowhere", "a/b/c", ""])
def test_what_is_neither_a_path_nor_a_name_is_one_sentence(checkout: Path, model: str) -> None:
    done = build_in(checkout, "--model", model)
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert not list((checkout / "build").rglob("*.bloom"))


def test_an_image_that_dies_at_once_leaves_its_last_words(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(
        "#!/bin/sh\ncase $1 in\n  port) exit 1 ;;\n  inspect) echo false ;;\n"
        "  logs) echo the disk melted ;;\n  run) echo container ;;\nesac\n"
    )
    docker.chmod(0o755)
    native = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    done = subprocess.run(
        [ROOT / "scripts" / "check-image.sh", "generate", native, "image"],
        capture_output=True,
        text=True,
        env=os.environ | {"DOCKER": str(docker)},
    )
    assert done.returncode == 1
    assert "the disk melted" in done.stderr
    assert "does not start" in done.stderr


def copied(dockerfile: str, stages: Collection[str]) -> set[Path]:
    """Return the files of the repository that stages of a Dockerfile copy."""
    found, stage = set[Path](), ""
    for line in (ROOT / dockerfile).read_text().splitlines():
        words = line.split()
        if words[:1] == ["FROM"]:
            stage = words[-1]
        elif words[:1] == ["COPY"] and not words[1].startswith("--") and stage in stages:
            for path in ROOT.glob(words[1]):
                found |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return found


@pytest.mark.parametrize(
    ("dockerfile", "stages", "program"),
    [
        ("functions/Dockerfile", {"shared", "code-generate"}, "functions.generate.main"),
        ("functions/Dockerfile", {"shared", "code-tokenize"}, "functions.tokenize.main"),
        ("ui/Dockerfile", {"build"}, "ui.__main__"),
    ],
)
def test_an_image_has_every_module_that_it_imports(
    dockerfile: str, stages: set[str], program: str
) -> None:
    of = modules()
    needed = reached(program) | (reached("functions.__main__") if program[0] == "f" else set())
    packages = {of[name.rpartition(".")[0]] for name in needed if "." in name}
    missing = ({of[name] for name in needed} | packages) - copied(dockerfile, stages)
    assert {path for path in missing if "reference" not in path.name} == set()


@pytest.fixture(scope="module")
def images() -> dict[str, Any]:
    """Each service's image for arm64, as `docker inspect` describes it."""
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("no docker answers")
    if shutil.which("qemu-aarch64-static") is None:
        pytest.skip("qemu-user-static is not installed")
    done = build("--arch", "arm64", "--tag", TAG, "--registry", "pibloom.test")
    assert done.returncode == 0, done.stderr[-2000:]
    for service in LIMITS:
        assert f"{service} for arm64 answers" in done.stderr
    names = [f"pibloom.test/pibloom-{service}:{TAG}-arm64" for service in LIMITS]
    inspected = subprocess.run(
        [docker, "image", "inspect", *names], capture_output=True, text=True, check=True
    )
    return dict(zip(LIMITS, json.loads(inspected.stdout), strict=True))


@pytest.mark.parametrize("service", LIMITS)
def test_an_image_is_small_plain_and_labelled(images: dict[str, Any], service: str) -> None:
    image = images[service]
    model = {"generate": "pibloom-demo-w8", "tokenize": "pibloom-demo-tokenizer"}.get(service)
    beside = (ROOT / "build" / "model" / f"{model}.bloom").stat().st_size if model else 0
    assert image["Architecture"] == "arm64"
    assert image["Size"] - beside < LIMITS[service]
    assert image["Config"]["User"] == "65532:65532"
    labels = image["Config"]["Labels"]
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] != "0"


def test_a_model_is_a_layer_of_its_own(images: dict[str, Any]) -> None:
    """It stays where it is when anything else changes, and pods of a node share its pages."""
    name = images["generate"]["Id"]
    history = subprocess.run(
        ["docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    (at,) = [index for index, step in enumerate(history) if "/model/model.bloom #" in step]
    later = [step for step in history[:at] if "COPY" in step]  # newest first
    assert any("/app" in step for step in later)
    assert any("/packages" in step for step in later)
