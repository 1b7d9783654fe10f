"""The command that serves, and its page in a browser."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest
from PIL import Image

from jaxfer import FewShotClassifier
from jaxfer.cli.main import main

pytest.importorskip("aiohttp")


@contextlib.contextmanager
def command(*words):
    """The address of a service that the command runs."""
    line = [sys.executable, "-m", "jaxfer", "serve", *map(str, words)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


@pytest.mark.skipif(
    not shutil.which("chromedriver"), reason="needs Chromium with its driver"
)
def test_the_page_works_in_a_browser(fitted, photographs, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    for word in ("headless", "no-sandbox", "disable-gpu", "no-first-run"):
        options.add_argument(f"--{word}")
    options.add_argument("--disable-background-networking")
    options.add_argument(f"--user-data-dir={tmp_path / 'browser'}")
    path = shutil.which("chromedriver")
    driver = webdriver.ChromeService(executable_path=path)
    teal = tmp_path / "teal.png"
    Image.new("RGB", (30, 30), "teal").save(teal)
    with (
        command(fitted, "--port", 0) as address,
        webdriver.Chrome(options=options, service=driver) as browser,
    ):

        def texts(selector):
            return browser.execute_script(_TEXTS, selector)

        def wait(selector, count):
            WebDriverWait(browser, 20).until(lambda _: len(texts(selector)) == count)

        browser.get(address)
        wait("#classes li", 3)
        chosen = [
            photographs / "kite" / "kite00.jpg",
            photographs / "robin" / "robin08.jpg",
        ]
        pictures = browser.find_element(By.ID, "pictures")
        pictures.send_keys("\n".join(map(str, chosen)))
        wait(".result .label", 2)
        expected = FewShotClassifier.load(fitted).predict(chosen).tolist()
        assert texts(".result .label") == expected
        browser.find_element(By.ID, "label").send_keys("<b>teal</b>")
        browser.find_element(By.ID, "examples").send_keys(str(teal))
        browser.find_element(By.CSS_SELECTOR, "#add button").click()
        wait("#classes li", 4)
        assert "<b>teal</b> (1)" in texts("#classes li")[0]
        browser.execute_script(_DROP)
        wait(".result .label", 3)
        assert texts(".result .label")[0] == "<b>teal</b>"
        browser.find_elements(By.CSS_SELECTOR, "#classes button")[0].click()
        browser.switch_to.alert.accept()
        wait("#classes li", 3)
        browser.find_element(By.ID, "pictures").send_keys(str(fitted))
        WebDriverWait(browser, 20).until(lambda _: "expected" in texts("#message")[0])
        assert "JPEG" in texts("#message")[0]


# The texts of the elements that a selector finds.
_TEXTS = "return [...document.querySelectorAll(arguments[0])].map((x) => x.innerText);"
# Drops a teal picture on the page, as a user would.
_DROP = """
const canvas = document.createElement("canvas");
canvas.width = canvas.height = 30;
const context = canvas.getContext("2d");
context.fillStyle = "teal";
context.fillRect(0, 0, 30, 30);
canvas.toBlob((blob) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([blob], "drop.png", { type: "image/png" }));
  const event = new DragEvent("drop", { dataTransfer, bubbles: true });
  document.getElementById("drop").dispatchEvent(event);
});
"""


def test_a_port_in_use_is_refused(fitted, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match="2"):
            main(["serve", str(fitted), "--port", str(port)])
    assert f"got 127.0.0.1:{port}" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(fitted), "--port", "70000"])
    assert "a port from 0 to 65535, got 70000" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["serve", str(fitted), "--to", __file__])
    assert "expected a new file for --to" in capsys.readouterr().err


def test_the_command_serves_until_it_is_stopped(fitted):
    with command(fitted, "--port", 0) as address:
        with urllib.request.urlopen(f"{address}/health") as answer:
            assert json.load(answer)["status"] == "ok"
