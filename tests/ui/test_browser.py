"""The page in a real browser, and what its server gives and refuses."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest

from unleak.data.video import write_video
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


@contextmanager
def visit(browser, address):
    """The page in a browser profile of its own, which asks nobody but the server."""
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


@pytest.fixture
def page(browser, address):
    with visit(browser, address) as page:
        yield page


def give_photo(page, steps):
    page.set_input_files("input[type=file]", str(PHOTO))
    page.wait_for_selector("img[src*='gradio_api/file=']")
    page.get_by_label("Steps").fill(str(steps))


def animate(page):
    with page.expect_response(lambda response: "queue/join" in response.url, timeout=WAIT):
        page.get_by_role("button", name="Animate").click()


def downloading(page, button):
    with page.expect_download(timeout=WAIT) as download:
        page.locator(button).click()
    return download.value


def downloaded(page, button):
    return Path(downloading(page, button).path()).read_bytes()


PLAYING = """() => {
  const videos = [...document.querySelectorAll('#videos video')];
  window.seen ??= videos.map(() => new Set());
  videos.forEach((video, k) => window.seen[k].add(video.currentTime));
  return videos.length === 2 && window.seen.every((times) => times.size > 2);
}"""


@pytest.mark.slow
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
    page.wait_for_function("document.querySelector('#level summary').innerText.includes('sigma 5')")
    page.get_by_role("button", name="Other fixes").click()
    page.get_by_label("condition-noise", exact=True).check()
    page.get_by_label("condition-noise: beta").fill("-1")
    page.wait_for_selector("#level >> text=BETA -1 is outside")
    page.get_by_label("condition-noise: beta").fill("0.2")
    page.wait_for_selector("#level >> text=together with condition-noise")
    animate(page)
    page.wait_for_function("document.querySelector('.unleak-fixed')?.innerText.includes('start sigma=5')")
    page.wait_for_function(PLAYING)

    videos = [downloaded(page, button) for button in ("#get-plain", "#get-fixed")]
    assert all(video[4:8] == b"ftyp" for video in videos)
    assert videos[0] != videos[1]
    record = json.loads(downloaded(page, "#get-settings"))
    assert (record["seed"], record["fixed"]["settings"]["motion"]) == (3, "high")
    assert record["fixed"]["start"]["sigma"] == pytest.approx(5)
    assert record["fixed"]["settings"]["strategies"][0].startswith("ConditionNoise(beta=0.2")


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
    message = "text=photo.jpg: not an image that can be read"
    page.wait_for_selector(message)
    page.locator("#example-0").click()  # mended: the message goes
    page.wait_for_selector(message, state="detached")
    page.wait_for_selector("#photo img[src*='gradio_api/file=']")


@needs_chromium
def test_an_example_is_a_photo_of_the_visitor_who_clicked_it(browser, address):
    with visit(browser, address) as mine, visit(browser, address) as theirs:
        mine.locator("#example-1").click()
        mine.wait_for_selector("#photo img[src*='gradio_api/file=']")
        link = mine.get_attribute("#photo img[src*='gradio_api/file=']", "src")
        assert mine.request.get(link).status == 200
        assert theirs.request.get(link).status == 404


@pytest.mark.slow
@needs_chromium
def test_a_model_is_diagnosed_on_clips_and_the_verdict_is_told_and_downloaded(page, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    moving = np.stack([photo[:64, 2 * k : 64 + 2 * k] for k in range(24)])
    write_video(moving, tmp_path / "moving.mp4", fps=7)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    page.get_by_label("Steps").fill("1")
    page.get_by_role("tab", name="Diagnosis").click()
    page.get_by_role("button", name="Diagnose").click()
    page.wait_for_selector("text=give a clip first")
    page.set_input_files("#clips input[type=file]", [str(tmp_path / name) for name in ("moving.mp4", "broken.mp4")])
    page.wait_for_selector("#clips >> text=moving")
    page.locator("#levels").get_by_role("textbox").fill("0.50T")
    page.get_by_role("button", name="Diagnose").click()
    page.wait_for_selector("#verdict img")
    told = page.inner_text("#verdict")
    assert "Undecided: 1 clips that move prove nothing" in told
    assert "few steps 1 steps" in told.replace("\n", " ")
    assert page.evaluate("document.querySelector('#verdict img').naturalWidth") > 500
    record = json.loads(downloaded(page, "#get-json"))
    assert record["source"] == ["moving.mp4", "broken.mp4"]
    assert record["left_out"] == 1
    assert record["starts"].keys() == {"0.50T"}
    assert downloaded(page, "#get-csv").startswith(b"test,who,start,")


@needs_chromium
def test_a_start_is_found_and_taken_over(page):
    give_photo(page, steps=1)
    page.get_by_role("tab", name="Find a start").click()
    page.get_by_label("Target motion").fill("fast")
    page.get_by_role("button", name="Find a start").click()
    page.wait_for_selector("text=target motion 'fast': give a speed above 0")
    page.get_by_label("Target motion").fill("500px/s")
    page.get_by_role("button", name="Find a start").click()
    page.wait_for_selector("#found table")
    assert "500px/s is out of reach" in page.inner_text("#found")
    chosen = page.inner_text("#found .unleak-chosen th")
    page.wait_for_function("document.querySelector('#motion input:checked').value === 'own'")
    assert page.locator("#start").get_by_role("textbox").input_value() == chosen


@needs_chromium
def test_two_visitors_have_nothing_of_each_other(browser, address):
    with visit(browser, address) as mine, visit(browser, address) as theirs:
        give_photo(mine, steps=1)
        photo = mine.get_attribute("img[src*='gradio_api/file=']", "src")
        animate(mine)
        mine.wait_for_selector("#videos video")
        links = [downloading(mine, button).url for button in ("#get-plain", "#get-fixed", "#get-settings")]
        assert all("/unleak-ui-" in link for link in [photo, *links])
        for link in [photo, *links]:
            assert mine.request.get(link).status == 200
            assert theirs.request.get(link).status == 404
            assert httpx.get(link, timeout=60).status_code == 404
        assert theirs.locator("#videos video, img[src*='gradio_api/file=']").count() == 0

        path = photo.partition("file=")[2]
        cookies = {one["name"]: one["value"] for one in theirs.context.cookies()}
        with httpx.Client(cookies=cookies, timeout=120) as client:
            assert not ended(client, address, photo={"path": path}, model="nano")["success"]
        cookies = {one["name"]: one["value"] for one in mine.context.cookies()}
        with httpx.Client(cookies=cookies, timeout=120) as client:
            assert ended(client, address, photo={"path": path}, model="nano")["success"]


def ended(client, address, *, photo, model, session="s"):
    """How a request for a pair of videos ended that was made by hand."""
    config = client.get(f"{address}config").json()
    event = next(one for one in config["dependencies"] if "on_animate" in one["api_name"])
    props = {one["id"]: one["props"] for one in config["components"]}
    given = photo and {**photo, "meta": {"_type": "gradio.FileData"}}
    session += cookie_of(client)
    labels = [props[key].get("label") for key in event["inputs"]]
    data = [props[key].get("value") for key in event["inputs"]]  # as the page fills its fields
    for label, value in {"Photo": given, "Model": model, "Steps": 1}.items():
        data[labels.index(label)] = value
    body = {"data": data, "fn_index": event["id"], "session_hash": session}
    assert client.post(f"{address}gradio_api/queue/join", json=body).status_code == 200
    with client.stream("GET", f"{address}gradio_api/queue/data?session_hash={session}") as stream:
        messages = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
    (last,) = [one for one in messages if one["msg"] == "process_completed"]
    return last


def cookie_of(client):
    return client.cookies.get("unleak_visitor", "")


def get(client, address, path):
    return client.get(f"{address}gradio_api/file={path}").status_code


def upload(client, address, name, content):
    return client.post(f"{address}gradio_api/upload", files={"files": (name, content)})


@pytest.fixture
def client():
    with httpx.Client(timeout=60) as client:
        yield client


def test_files_outside_of_its_folder_are_refused_and_those_inside_are_not(address, client, tmp_path):
    (inside,) = upload(client, address, "a.png", b"mine").json()
    assert "unleak-ui-" in inside
    assert get(client, address, inside) == 200
    own = tmp_path / "secret.txt"
    own.write_text("secret")
    folder = inside.split("/unleak-ui-")[0]
    for path in ("/etc/passwd", own, PHOTO, Path.cwd() / "pyproject.toml", f"{inside}/../../../../etc/passwd", folder):
        assert get(client, address, path) in (403, 404), path


def test_uploads_are_limited_in_size_and_stay_in_the_folder(address, client):
    assert upload(client, address, "large.png", b"x" * (MAX_UPLOAD + 1)).status_code == 413
    (path,) = upload(client, address, "../../escaped.png", b"x").json()
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
def test_a_request_by_hand_gets_no_other_file_and_no_other_model(address, client, photo, model, monkeypatch):
    monkeypatch.setattr("unleak.zoo.hub.load", None)
    monkeypatch.setattr("unleak.animate.record.load_image", None)
    client.get(address)
    assert not ended(client, address, photo=photo, model=model)["success"]


@pytest.mark.slow
def test_only_this_machine_is_served_unless_told_otherwise(address):
    assert address.startswith("http://127.0.0.1:")
