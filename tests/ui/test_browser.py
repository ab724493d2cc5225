"""The chat in a real Chromium: what no simulation shows."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.ports import free_port
from tests.ui.processes import chat, wait_until_healthy

ROOT = Path(__file__).parents[2]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Site:
    """A running chat in front of slow fake functions."""

    url: str
    browser: Browser
    foreign: list[str]
    errors: list[str]

    def open(self, **context: object) -> Page:
        """Open the chat in a browser of its own."""
        page = self.browser.new_context(**context).new_page()  # type: ignore[arg-type]
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console",
            lambda said: self.errors.append(said.text) if said.type == "error" else None,
        )
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((self.url, "data:", "blob:"))
                else self.foreign.append(request.url)
            ),
        )
        page.goto(self.url)
        expect(page.locator(".empty")).to_be_visible()
        return page


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[str, Browser]]:
    if not Path(CHROMIUM).exists():
        pytest.fail("Chromium is missing: install it with `apt-get install chromium`.")
    ports = free_port(), free_port(), free_port()
    fake = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.ui.fake_functions"),
            *("--port", str(ports[0]), "--tokenize-port", str(ports[1])),
            *("--delay", "0.08", "--before", "0.1"),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert fake.stdout is not None
    assert "generate" in fake.stdout.readline()
    addresses = {
        "PIBLOOM_GENERATE_URL": f"http://127.0.0.1:{ports[0]}",
        "PIBLOOM_TOKENIZE_URL": f"http://127.0.0.1:{ports[1]}",
    }
    try:
        with chat(ports[2], **addresses) as process, sync_playwright() as playwright:
            wait_until_healthy(ports[2], process)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            yield f"http://127.0.0.1:{ports[2]}", browser
            browser.close()
    finally:
        fake.kill()
        fake.communicate()


@pytest.fixture
def site(running: tuple[str, Browser]) -> Iterator[Site]:
    url, browser = running
    site = Site(url, browser, [], [])
    yield site
    for context in browser.contexts:
        context.close()
    assert site.foreign == [], "the page loaded something from elsewhere"
    assert site.errors == []


def ask(page: Page, text: str) -> None:
    box = page.get_by_label("Your message")
    box.click()
    page.keyboard.type(text)
    page.keyboard.press("Enter")


def finished(page: Page) -> None:
    expect(page.locator(".turn").last.locator(".state-done")).to_be_visible(timeout=30_000)


def lengths(page: Page) -> list[int]:
    """Watch the reply from within the page until it is done; return each length it had."""
    seen: list[int] = page.evaluate(
        """() => new Promise((resolve) => {
            const seen = [];
            const look = () => {
                const reply = [...document.querySelectorAll(".prose")].at(-1);
                const length = reply ? reply.textContent.length : 0;
                if (length && seen.at(-1) !== length) seen.push(length);
                if (document.querySelector(".state-done")) resolve(seen);
                else requestAnimationFrame(look);
            };
            look();
        })"""
    )
    return seen


def test_tokens_arrive_one_after_another(site: Site) -> None:
    page = site.open()
    ask(page, "Tell me a story")
    seen = lengths(page)
    assert seen == sorted(seen)
    assert len(seen) > 20  # of about forty tokens, one each 80 ms
    expect(page.locator(".state-text")).to_contain_text("12.3 tokens/s")
    expect(page.locator(".prose")).to_contain_text("Once upon a time")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stop_stops(site: Site, how: str) -> None:
    page = site.open()
    ask(page, "Tell me a story")
    expect(page.locator(".prose")).to_contain_text("Once upon")
    if how == "button":
        page.get_by_role("button", name="Stop", exact=True).click()
    else:
        page.keyboard.press("Escape")
    expect(page.locator(".state-text")).to_contain_text("Stopped")
    text = page.locator(".prose").inner_text()
    assert not text.endswith("home.")
    page.wait_for_timeout(400)
    assert page.locator(".prose").inner_text() == text
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"


def test_a_reload_keeps_the_chat_and_another_tab_has_its_own(site: Site) -> None:
    page = site.open()
    ask(page, "Hello")
    finished(page)
    other = page.context.new_page()
    other.goto(site.url)
    expect(other.locator(".empty")).to_be_visible()
    assert "I am piBLOOM" not in other.content()
    page.reload()
    expect(page.locator(".question-text")).to_have_text("Hello")
    expect(page.locator(".prose")).to_have_text("Hello! I am piBLOOM.")


def test_shift_enter_is_a_new_line_and_composing_does_not_send(site: Site) -> None:
    page = site.open()
    box = page.get_by_label("Your message")
    box.click()
    page.keyboard.type("one")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("two")
    expect(box).to_have_value("one\ntwo")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    page.wait_for_timeout(200)
    expect(box).to_have_value("one\ntwo")
    page.keyboard.press("Enter")
    expect(box).to_have_value("")
    expect(page.locator(".question-text")).to_have_text("one\ntwo")


def test_the_keyboard_alone_is_enough(site: Site) -> None:
    page = site.open()
    assert page.evaluate("document.activeElement.tagName") == "TEXTAREA"
    ask(page, "Hello")
    finished(page)
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Regenerate":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.locator(".writing")).to_be_visible()
    finished(page)


@pytest.mark.parametrize("width", [320, 360])
def test_a_phone_has_no_sideways_scroll_and_its_input_in_view(site: Site, width: int) -> None:
    page = site.open(viewport={"width": width, "height": 640}, has_touch=True, is_mobile=True)
    for text in ("Show me code", "Hello"):
        ask(page, text)
        finished(page)
    for path in ("/", "/about"):
        if path != "/":
            page.goto(site.url + path)
            expect(page.locator(".facts dd").first).to_be_visible()
        for box in ("document.documentElement", "document.querySelector('.scroll')"):
            assert page.evaluate(f"{box}.scrollWidth - {box}.clientWidth") == 0
    page.goto(site.url)
    composer = page.locator(".composer").bounding_box()
    assert composer is not None
    assert composer["y"] + composer["height"] <= 640


def test_right_to_left_text_stands_right(site: Site) -> None:
    page = site.open()
    ask(page, "مرحبا! كيف حالك؟")
    finished(page)
    paragraph = page.locator(".prose p")
    assert paragraph.evaluate("e => e.matches(':dir(rtl)')")
    right = """e => { const range = document.createRange(); range.selectNodeContents(e);
        const text = range.getBoundingClientRect(), box = e.getBoundingClientRect();
        return Math.round(box.right - text.right) < 3 && text.left - box.left > 20; }"""
    assert paragraph.evaluate(right)
    box = page.get_by_label("Your message")
    page.keyboard.type("مرحبا")
    expect(box).to_have_value("مرحبا")
    assert box.evaluate("e => e.matches(':dir(rtl)')")


def test_what_the_model_writes_is_not_run(site: Site) -> None:
    page = site.open()
    ask(page, "attack")
    expect(page.locator(".prose")).to_contain_text("THE END", timeout=30_000)
    finished(page)
    assert page.evaluate("window.hacked") is None
    assert page.locator(".prose").locator("script, img, svg, iframe").count() == 0
    for link in page.locator(".prose a").all():
        assert not (link.get_attribute("href") or "").lower().startswith("javascript")
    page.reload()
    expect(page.locator(".prose")).to_contain_text("THE END")
    assert page.evaluate("window.hacked") is None


def test_code_is_copied_as_it_is(site: Site) -> None:
    page = site.open(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "Show me code")
    finished(page)
    page.get_by_label("Copy this code").click()
    expect(page.locator("#said")).to_have_text("Copied")
    copied = page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("def total(numbers):\n    result = 0\n")
    page.get_by_label("Copy this reply").click()
    page.wait_for_function(
        "navigator.clipboard.readText().then((text) => text.startsWith('A loop adds'))"
    )


def test_the_newest_words_stay_in_view_unless_one_scrolls_up(site: Site) -> None:
    page = site.open(viewport={"width": 900, "height": 420})
    ask(page, "Show me code")
    finished(page)
    left = "(() => { const b = document.querySelector('.scroll');"
    left += " return b.scrollHeight - b.scrollTop - b.clientHeight; })()"
    assert page.evaluate(left) < 5
    ask(page, "Show me code again")
    expect(page.locator(".prose").last).to_contain_text("def")
    page.mouse.move(450, 200)
    page.mouse.wheel(0, -600)
    page.wait_for_timeout(500)
    assert page.evaluate(left) > 100
    page.get_by_label("Go to the newest message").click()
    page.wait_for_function(f"{left} < 60")


def test_an_empty_chat_shows_its_greeting_from_the_top(site: Site) -> None:
    page = site.open(viewport={"width": 360, "height": 480})
    box = "document.querySelector('.scroll')"
    assert page.evaluate(f"{box}.scrollHeight - {box}.clientHeight") > 0
    # The page may scroll once it has been laid out and observers were told.
    page.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 500))")
    assert page.evaluate(f"{box}.scrollTop") == 0
    assert page.locator(".jump-shown").count() == 0
    ask(page, "Show me code")
    finished(page)
    assert page.evaluate(f"{box}.scrollTop") > 0
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".empty")).to_be_visible()
    page.wait_for_function(f"{box}.scrollTop === 0")


def test_settings_open_close_and_change_the_theme(site: Site) -> None:
    page = site.open(color_scheme="light")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("button", name="Dark", exact=True).click()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    page.keyboard.press("Escape")
    expect(page.locator(".sheet")).to_be_hidden()
    page.reload()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))


@pytest.mark.parametrize("length", [64_001, 300_000, 1_200_000])
def test_a_message_that_is_too_long_is_told_and_kept(site: Site, length: int) -> None:
    page = site.open()
    box = page.locator("textarea")
    # As pasted; typing so much would take long.
    box.evaluate(
        """(box, length) => {
            box.value = "x".repeat(length);
            box.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        length,
    )
    note = page.locator("#too-long")
    expect(note).to_have_text(
        f"This message has {length:,} characters. At most 64,000 can be sent: shorten it."
    )
    box.press("Enter")
    page.locator(".button-main").click()
    expect(note).to_be_visible()
    expect(page.locator(".question")).to_have_count(0)
    assert len(box.input_value()) == length
    box.fill("Short again")
    expect(note).to_be_hidden()
    box.press("Enter")
    expect(page.locator(".question-text")).to_have_text("Short again")


def test_a_page_of_another_session_loads_anew_and_works(site: Site) -> None:
    """Two pages opened at once, before the first cookie: one is left with the other's cookie."""
    page = site.open()
    page.context.clear_cookies()
    other = page.context.new_page()
    other.goto(site.url)
    expect(other.locator(".empty")).to_be_visible()
    with page.expect_event("load"):
        page.evaluate("window.socket.disconnect(); window.socket.connect()")
    expect(page.locator(".empty")).to_be_visible()
    page.locator("textarea").fill("Still here")
    page.locator("textarea").press("Enter")
    expect(page.locator(".question-text")).to_have_text("Still here")
