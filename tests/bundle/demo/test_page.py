"""The page in a real browser: type, choose, recommend, read; by keyboard, and on a phone's width."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra `demo` is not installed")
pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from rectune import Recommender
from tests.bundle.test_export_answers import films
from tests.exports import GPT2, exported

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.skipif(shutil.which("chromedriver") is None, reason="Chromium and its driver are not installed"),
]
PATIENCE = 30  # seconds


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


def shown(source: Path) -> str:
    from rectune.bundle.demo.page import launch

    return launch(Recommender.from_pretrained(source), host="127.0.0.1", port=0, block=False)


@pytest.fixture(scope="module")
def url(shop_bundle: Path) -> str:
    return shown(shop_bundle)


def until(found: Callable[[], Any]) -> Any:
    """What is found, once it is there."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if (value := found()) or time.monotonic() > end:
                assert value, "the page does not show it"
                return value
        except Exception:
            if time.monotonic() > end:
                raise
        time.sleep(0.05)


def of(browser: Any, css: str) -> list[Any]:
    return browser.find_elements(By.CSS_SELECTOR, css)


def add(browser: Any, title: str, field: str = "add-item") -> None:
    """Type the words of a title and take what is offered, by keyboard alone."""
    box = until(lambda: of(browser, f"#{field} input"))[0]
    box.click()
    box.send_keys(title.lower())
    until(lambda: [option for option in of(browser, "[role=option]") if option.text.strip() == title])
    box.send_keys(Keys.ARROW_DOWN, Keys.ENTER)


def history(browser: Any) -> list[str]:
    return [
        line.text
        for line in of(browser, "ol li")
        if line.find_elements(By.XPATH, "ancestor::*[@data-testid='markdown']")
    ]


def listed(browser: Any, name: str) -> list[str]:
    return [item.get_attribute("data-item") for item in of(browser, f"section[aria-label='{name}'] li")]


def radios(browser: Any, value: str) -> list[Any]:
    return [radio for radio in of(browser, "input[type=radio]") if radio.get_attribute("value") == value]


def ids(lists: Any) -> list[str]:
    return [item.item_id for item in lists]


def test_type_choose_and_read_three_lists(browser: Any, url: str, shop_bundle: Path) -> None:
    it = Recommender.from_pretrained(shop_bundle)
    title = dict(it.items.select("item_id", "title").iter_rows())
    browser.set_window_size(1200, 900)
    browser.get(url)
    add(browser, title["i3"])
    until(lambda: listed(browser, "Model") == ids(it.recommend(["i3"], 6, prior_weight=0)))
    add(browser, title["i7"])
    until(lambda: listed(browser, "Model + prior") == ids(it.recommend(["i3", "i7"], 6)))
    assert listed(browser, "Model") == ids(it.recommend(["i3", "i7"], 6, prior_weight=0))
    assert listed(browser, "Prior") == ids(it.prior_list(["i3", "i7"], 6))
    assert history(browser) == [title["i3"], title["i7"]]
    agreed = set(listed(browser, "Model")) & set(listed(browser, "Prior")) & set(listed(browser, "Model + prior"))
    assert len(of(browser, "section .rt-agree")) == 3 * len(agreed)

    def press(text: str, number: int) -> None:
        until(lambda: [b for b in of(browser, "button") if b.text == text])[number].send_keys(Keys.ENTER)  # no mouse

    press("Up", 1)
    until(lambda: history(browser) == [title["i7"], title["i3"]])
    until(lambda: listed(browser, "Model + prior") == ids(it.recommend(["i7", "i3"], 6)))
    press("Remove", 0)
    until(lambda: history(browser) == [title["i3"]])
    press("Empty the history", 0)
    until(lambda: "The history is empty" in browser.find_element(By.TAG_NAME, "body").text)
    until(lambda: listed(browser, "Model + prior") == ids(it.recommend([], 6)))
    slider = of(browser, "#weight input[type=number]")[0]
    slider.send_keys(Keys.CONTROL, "a")
    slider.send_keys("0", Keys.TAB)
    until(lambda: listed(browser, "Model + prior") == ids(it.recommend([], 6, prior_weight=0)))


def test_the_report_is_in_a_tab_and_nothing_is_fetched_from_elsewhere(browser: Any, url: str) -> None:
    browser.get_log("performance")
    browser.get(url)
    tab = until(lambda: [t for t in of(browser, "[role=tab]") if t.text == "Report"])[0]
    tab.click()
    frame = until(lambda: of(browser, "iframe[title=report]"))[0]
    browser.switch_to.frame(frame)
    until(lambda: "popularity" in browser.find_element(By.TAG_NAME, "body").text)
    browser.switch_to.default_content()
    import json

    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    answered = [e["params"]["response"]["url"] for e in events if e["method"] == "Network.responseReceived"]
    assert answered
    assert not [address for address in answered if not address.startswith((url, "data:", "blob:", "about:"))]


def test_on_a_phone_nothing_runs_over_the_edge(browser: Any, url: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    try:
        browser.get(url)
        until(lambda: of(browser, "#recommend"))[0].click()
        until(lambda: listed(browser, "Model + prior"))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 360
        widths = [section.size["width"] for section in of(browser, "section.rt-list")]
        assert min(widths) > 200  # one below the other
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_likes_in_a_form_of_their_own(browser: Any, tmp_path: Path) -> None:
    folder = exported(films(tmp_path, GPT2))
    it = Recommender.from_pretrained(folder)
    browser.get(shown(folder))
    add(browser, "Film number 4")
    add(browser, "Film number 7")
    until(lambda: len(radios(browser, "dislike")) == 2)
    browser.execute_script("arguments[0].click()", radios(browser, "dislike")[0])
    until(lambda: [radio.is_selected() for radio in radios(browser, "dislike")] == [True, False])
    add(browser, "Film number 3", "target")
    wanted = it.score([("p4", False), ("p7", True)], "p3")
    until(lambda: f"Film number 3: Yes with {wanted.score:.1%}" in of(browser, "#answer")[0].text)


def test_ratings_in_a_form_of_their_own(browser: Any, tmp_path: Path) -> None:
    more = {"tasks": [{"call": "rating", "template": "rating.jinja"}], "rank": {"template": "rating.jinja"}, "eval": {"call": "ratings", "bootstrap_samples": 20}}  # fmt: skip
    folder = exported(films(tmp_path, GPT2, more=more))
    it = Recommender.from_pretrained(folder)
    browser.get(shown(folder))
    add(browser, "Film number 4")
    until(lambda: radios(browser, "2"))
    browser.execute_script("arguments[0].click()", radios(browser, "2")[0])
    add(browser, "Film number 3", "target")
    until(lambda: f"expected rating {it.score([('p4', 2)], 'p3').score:.2f}" in of(browser, "#answer")[0].text)


def test_of_a_large_catalogue_the_page_is_given_what_is_typed(
    browser: Any, shop_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import rectune.bundle.demo.page as page

    monkeypatch.setattr(page, "MOST_CHOICES", 5)
    monkeypatch.setattr(page, "SHOWN", 5)
    it = Recommender.from_pretrained(shop_bundle)
    title = dict(it.items.select("item_id", "title").iter_rows())
    browser.get(shown(shop_bundle))
    until(lambda: of(browser, "#add-item input"))[0].click()
    until(lambda: len(of(browser, "[role=option]")) == 5)
    add(browser, title["i33"])
    until(lambda: listed(browser, "Model + prior") == ids(it.recommend(["i33"], 6)))
