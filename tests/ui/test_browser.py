"""The page in a real browser, and what its server gives and refuses."""

import json
import shutil
from pathlib import Path

import httpx
import pytest

from unleak.ui.serve import MAX_UPLOAD, serving

PHOTO = Path(__file__).parents[2] / "examples/photo.jpg"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WAIT = 300_000  # ms; a loaded machine is slow
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def address():
    with serving(["nano"], device="cpu") as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, address):
    elsewhere = []
    with browser.new_context(viewport={"width": 1280, "height": 1050}) as context:
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.on(
            "request",
            lambda request: (
                elsewhere.append(request.url) if not request.url.startswith((address, "data:", "blob:")) else None
            ),
        )
        page.goto(address)
        page.wait_for_selector("#videos .unleak-empty")
        yield page
    assert elsewhere == []


def animate(page):
    with page.expect_response(lambda response: "queue/join" in response.url, timeout=WAIT):
        page.get_by_role("button", name="Animate").click()


def downloaded(page, button):
    with page.expect_download(timeout=WAIT) as download:
        page.locator(button).click()
    return Path(download.value.path()).read_bytes()


PLAYING = """() => {
  const videos = [...document.querySelectorAll('#videos video')];
  window.seen ??= videos.map(() => new Set());
  videos.forEach((video, k) => window.seen[k].add(video.currentTime));
  return videos.length === 2 && window.seen.every((times) => times.size > 2);
}"""


@needs_chromium
def test_upload_generate_watch_change_motion_download(page):
    page.set_input_files("input[type=file]", str(PHOTO))
    page.wait_for_selector("img[src*='gradio_api/file=']")
    page.get_by_label("Steps").fill("2")
    page.get_by_label("Seed").fill("3")
    animate(page)
    page.wait_for_selector("#videos video")
    page.wait_for_function(PLAYING)
    assert "start sigma=20" in page.inner_text(".unleak-fixed")

    page.get_by_label("high", exact=True).check(force=True)
    page.wait_for_function("document.querySelector('#level').innerText.includes('sigma\\n5')")
    animate(page)
    page.wait_for_function("document.querySelector('.unleak-fixed')?.innerText.includes('start sigma=5')")
    page.wait_for_function(PLAYING)

    videos = [downloaded(page, button) for button in ("#get-plain", "#get-fixed")]
    assert all(video[4:8] == b"ftyp" for video in videos)
    assert videos[0] != videos[1]
    record = json.loads(downloaded(page, "#get-settings"))
    assert (record["seed"], record["fixed"]["settings"]["motion"]) == (3, "high")
    assert record["fixed"]["start"]["sigma"] == pytest.approx(5)


@needs_chromium
def test_a_model_error_is_a_message_and_the_next_request_works(page, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("boom <i>")

    page.set_input_files("input[type=file]", str(PHOTO))
    page.wait_for_selector("img[src*='gradio_api/file=']")
    page.get_by_label("Steps").fill("1")
    with monkeypatch.context() as patch:
        patch.setattr("unleak.ui.studio.sample", fail)
        animate(page)
        page.wait_for_selector("text=The model failed (RuntimeError): boom <i>")
    animate(page)
    page.wait_for_selector("#videos video")


@needs_chromium
def test_what_is_no_photo_is_a_message(page, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"no photo at all")
    page.set_input_files("input[type=file]", str(tmp_path / "photo.jpg"))
    page.wait_for_selector("img[src*='gradio_api/file=']", state="attached")
    animate(page)
    page.wait_for_selector("text=photo.jpg: not an image that can be read")


def get(address, path):
    return httpx.get(f"{address}gradio_api/file={path}", timeout=60).status_code


def upload(address, name, content):
    return httpx.post(f"{address}gradio_api/upload", files={"files": (name, content)}, timeout=60)


def test_files_outside_of_its_folder_are_refused_and_those_inside_are_not(address, tmp_path):
    (inside,) = upload(address, "a.png", b"mine").json()
    assert "unleak-ui-" in inside
    assert get(address, inside) == 200
    own = tmp_path / "secret.txt"
    own.write_text("secret")
    folder = inside.split("/unleak-ui-")[0]
    for path in ("/etc/passwd", own, PHOTO, Path.cwd() / "pyproject.toml", f"{inside}/../../../../etc/passwd", folder):
        assert get(address, path) in (403, 404), path


def test_uploads_are_limited_in_size_and_stay_in_the_folder(address):
    assert upload(address, "large.png", b"x" * (MAX_UPLOAD + 1)).status_code == 413
    (path,) = upload(address, "../../escaped.png", b"x").json()
    assert "unleak-ui-" in path
    assert ".." not in path


@pytest.mark.parametrize(
    ("photo", "model"),
    [
        ({"path": "/etc/passwd"}, "nano"),
        ({"path": str(PHOTO)}, "nano"),
        ({"path": "http://127.0.0.1:9/a.png"}, "nano"),
        ({"path": "https://example.org/a.png"}, "nano"),
        (None, "svd"),
        (None, "owner/name"),
    ],
)
def test_a_request_by_hand_gets_no_other_file_and_no_other_model(address, photo, model, monkeypatch):
    monkeypatch.setattr("unleak.ui.studio.load", None)
    monkeypatch.setattr("unleak.ui.studio.load_image", None)
    config = httpx.get(f"{address}config", timeout=60).json()
    number = next(one["id"] for one in config["dependencies"] if "on_animate" in one["api_name"])
    given = photo and {**photo, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [given, model, "medium", "", "standard", "", 0, 1], "fn_index": number, "session_hash": "s"}
    joined = httpx.post(f"{address}gradio_api/queue/join", json=body, timeout=60)
    assert joined.status_code == 200
    with httpx.stream("GET", f"{address}gradio_api/queue/data?session_hash=s", timeout=120) as stream:
        messages = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
    (ended,) = [one for one in messages if one["msg"] == "process_completed"]
    assert not ended["success"]


def test_only_this_machine_is_served_unless_told_otherwise(address):
    assert address.startswith("http://127.0.0.1:")
