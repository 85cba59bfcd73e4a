"""check.py TOOL FOLDER - see run.sh. Pages are of a run that is made here, of two, and of made-up logs whose values are known."""
import base64
import json
import math
import os
import subprocess
import sys
import tempfile

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

TOOL, FOLDER = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
DEMO = os.path.abspath("examples/demo")
EVIL = "</title></script><script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\">'&"
counts = {True: 0, False: 0}


def check(name, good, why=""):
    counts[bool(good)] += 1
    print("ok     %s" % name if good else "FAIL   %s: %s" % (name, why), flush=True)


def tool(*arguments):
    done = subprocess.run([TOOL, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print("FAIL   peft %s: %s" % (" ".join(arguments), done.stdout))
        print("%d passed, %d failed" % (counts[True], counts[False] + 1))
        sys.exit(1)


def write_log(path, steps, shift=0.0, job=None, evaluate=0):
    """Rows as they were written, by step."""
    rows = {}
    with open(path, "w") as file:
        for i in range(1, steps + 1):
            row = {"step": i, "loss": shift + 5 / (1 + 9 * i / steps) + 0.2 * math.sin(7 * i), "learning_rate": 1e-3 * (1 - i / (steps + 1)),
                   "grad_norm": 2 + math.cos(3 * i), "tokens": 400, "tokens_per_second": 1500 + 300 * math.sin(i), "peak_bytes": 40000000 + i}
            if job is not None:
                row["job"] = job
            if evaluate and i % evaluate == 0:
                row["eval_loss"] = shift + 5.5 / (1 + 9 * i / steps)
            rows[i] = row
            file.write(json.dumps(row) + "\n")
    return rows


def read_log(path):
    rows = (json.loads(line) for line in open(path))
    return {row["step"]: row for row in rows if "loss" in row}


def start(width=1080):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage", "--force-device-scale-factor=1",
                     "--disable-background-networking", "--window-size=%d,900" % width):
        options.add_argument(argument)
    options.binary_location = "/usr/bin/chromium"
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.chrome.service.Service("/usr/bin/chromedriver"))


class Page:
    def __init__(self, browser, path):
        self.browser = browser
        self.open(path)

    def open(self, path):
        self.browser.get("file://" + path)

    def media(self, scheme="light", media="screen", width=1080):
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia",
                                     {"media": media, "features": [{"name": "prefers-color-scheme", "value": scheme}]})
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride",
                                     {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600})

    def shot(self, name):
        data = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": {
            "x": 0, "y": 0, "scale": 1, "width": self.js("return document.documentElement.clientWidth"),
            "height": self.js("return document.documentElement.scrollHeight")}})
        with open(os.path.join(FOLDER, name + ".png"), "wb") as file:
            file.write(base64.b64decode(data["data"]))

    def js(self, text, *arguments):
        return self.browser.execute_script(text, *arguments)

    def data(self, chart):
        return json.loads(self.js("return document.querySelector('#' + arguments[0] + ' script').textContent", chart))

    def hover(self, chart, step):
        """The lines of the box beside the pointer."""
        data = self.data(chart)
        svg = self.browser.find_element(By.CSS_SELECTOR, "#%s svg" % chart)
        self.js("arguments[0].scrollIntoView({block: 'center'})", svg)
        box = self.js("var b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", svg)
        x = data["box"][0] + data["box"][2] * (step - data["x"][0]) / (data["x"][1] - data["x"][0])
        y = data["box"][1] + data["box"][3] / 2
        actions = ActionChains(self.browser, duration=20)
        actions.w3c_actions.pointer_action.move_to_location(round(box[0] + x / data["size"][0] * box[2]), round(box[1] + y / data["size"][1] * box[3]))
        actions.perform()
        return self.tip(chart)

    def tip(self, chart):
        tip = self.browser.find_element(By.CSS_SELECTOR, "#%s .tip" % chart)
        return self.js("return [...arguments[0].children].map(e => e.tagName === 'B' ? e.textContent : [e.querySelector('span').textContent, "
                       "e.querySelector('b').textContent])", tip) if tip.is_displayed() else None

    def errors(self):
        return [entry["message"] for entry in self.browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def points(path):
    """Places of a path of M and L."""
    return [tuple(map(float, part.split())) for part in path.replace("M", "L").split("L") if part.strip()]


def values_on_path(page, chart, kind):
    """What a reader of the picture reads off each curve: step and value of each point, by the ticks of the axes."""
    data = page.data(chart)
    out = []
    for path in page.js("return [...document.querySelectorAll('#' + arguments[0] + ' path.' + arguments[1])].map(p => p.getAttribute('d'))", chart, kind):
        row = []
        for x, y in points(path):
            px, py = (x - data["box"][0]) / data["box"][2], 1 - (y - data["box"][1]) / data["box"][3]
            low, high = data["y"]
            row.append((data["x"][0] + px * (data["x"][1] - data["x"][0]), low * (high / low) ** py if data["log"] else low + py * (high - low)))
        out.append(row)
    return out


def test_curves(page, rows, name):
    columns = {"loss": "loss", "rate": "learning_rate", "norm": "grad_norm", "speed": "tokens_per_second"}
    for chart, column in columns.items():
        data = page.data(chart)
        steps, values = data["runs"][0]["curve"]
        wrong = [s for s, v in zip(steps, values) if not math.isclose(v, rows[s][column], rel_tol=1e-6)]
        check("%s: %s has values of the log" % (name, chart), steps and not wrong, wrong[:5])
        drawn = values_on_path(page, chart, "raw" if chart != "rate" and len(rows) >= 60 else "line")[0]
        span, reach = data["y"][1] - data["y"][0], data["x"][1] - data["x"][0]
        far = [(s, v) for (s, v), step in zip(drawn, steps)
               if abs(s - step) > 0.0005 * reach or abs(v - rows[step][column]) > 0.001 * span]
        check("%s: %s is drawn where they are" % (name, chart), len(drawn) == len(steps) and not far, far[:5])
        for step in (steps[0], steps[len(steps) // 3], steps[-1]):
            tip = page.hover(chart, step)
            shown = int(tip[0].split()[1]) if tip else None
            good = tip and abs(shown - step) <= max(1, reach / 300)
            check("%s: %s by hover at %d" % (name, chart, step), good and math.isclose(
                float(tip[1][1]), round(rows[shown][column]) if data["whole"] else rows[shown][column], rel_tol=1e-6), tip)


def test_layout(page, name):
    for width, scheme, media, what in ((1080, "light", "screen", "light"), (1080, "dark", "screen", "dark"), (360, "light", "screen", "narrow"),
                                       (760, "dark", "print", "print")):
        page.media(scheme, media, width)
        wide = page.js("return document.documentElement.scrollWidth")
        check("%s: %s fits %d pixels" % (name, what, width), wide <= width, wide)
        colour = page.js("return getComputedStyle(document.body).backgroundColor")
        check("%s: %s has its background" % (name, what), (sum(map(int, colour[4:-1].split(","))) < 200) == (what == "dark"), colour)
        poor = page.js(CONTRAST)
        check("%s: %s has contrast" % (name, what), not poor, poor[:4])
        over = page.js(OVERLAP)
        check("%s: %s has no labels over each other" % (name, what), not over, over[:4])
        page.shot("%s-%s" % (name, what))
    hidden = page.js("return [...document.querySelectorAll('details.data')].every(d => getComputedStyle(d).display === 'none')")
    check("%s: print leaves the tables of data out" % name, hidden)
    page.media()


# Texts whose contrast with what is behind them is below 4.5 to 1 (WCAG 2.1, 1.4.3).
CONTRAST = """
const probe = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
function rgba(text) { probe.clearRect(0, 0, 1, 1); probe.fillStyle = text; probe.fillRect(0, 0, 1, 1); return [...probe.getImageData(0, 0, 1, 1).data] }
function lightness(c) { return [0.2126, 0.7152, 0.0722].reduce((sum, w, i) => {
    const v = c[i] / 255; return sum + w * (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4) }, 0) }
function behind(e) { for (; e; e = e.parentElement) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c } return [255, 255, 255] }
const poor = [];
for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) || ['SCRIPT', 'TITLE', 'title'].includes(e.tagName)) continue;
    if (!e.getClientRects().length) continue;
    const style = getComputedStyle(e), a = lightness(rgba(e instanceof SVGElement ? style.fill : style.color)), b = lightness(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([e.tagName, e.textContent.slice(0, 30), ratio]);
}
return poor"""

OVERLAP = """
const bad = [];
for (const svg of document.querySelectorAll('.plot svg')) {
    const boxes = [...svg.querySelectorAll('text')].map(t => [t.getBoundingClientRect(), t.textContent]), frame = svg.parentElement.getBoundingClientRect();
    for (const [a, text] of boxes) {
        if (a.right > frame.right + 2 || a.left < frame.left - 2) bad.push([text, 'out of the frame']);
        for (const [b, other] of boxes) {
            if (a !== b && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 3 && b.top < a.bottom - 3) bad.push([text, other]);
        }
    }
}
return bad"""


def test_keys(page, rows, name):
    svg = page.browser.find_element(By.CSS_SELECTOR, "#loss svg")
    page.js("arguments[0].focus()", svg)
    steps = page.data("loss")["runs"][0]["curve"][0]
    for key, step in ((Keys.END, steps[-1]), (Keys.ARROW_LEFT, steps[-2]), (Keys.HOME, steps[0]), (Keys.ARROW_RIGHT, steps[1])):
        ActionChains(page.browser).send_keys(key).perform()
        tip = page.tip("loss")
        good = tip and tip[0] == "step %d" % step and math.isclose(float(tip[1][1]), rows[step]["loss"], rel_tol=1e-6)
        check("%s: keys reach step %d" % (name, step), good, tip)
    ActionChains(page.browser).send_keys(Keys.ESCAPE).perform()
    check("%s: Escape takes the box away" % name, page.tip("loss") is None)


def test_structure(page, name):
    tree = page.browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    role = lambda n: n.get("role", {}).get("value")
    said = lambda n: n.get("name", {}).get("value", "")
    images = [said(n) for n in tree if role(n) in ("image", "img") and not n.get("ignored")]
    check("%s: a reader is told what each picture shows" % name, len(images) >= 5 and all(len(text) > 20 for text in images), images)
    levels = page.js("return [...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    check("%s: headings follow each other" % name, levels[0] == 1 and levels.count(1) == 1 and all(b - a <= 1 for a, b in zip(levels, levels[1:])), levels)
    check("%s: no id twice" % name, page.js("const i = [...document.querySelectorAll('[id]')].map(e => e.id); return new Set(i).size === i.length"))
    check("%s: every table has heads" % name, page.js("return [...document.querySelectorAll('table')].every(t => t.querySelector('th[scope=col]') && "
                                                      "t.querySelector('th[scope=row]'))"))
    check("%s: nothing was loaded" % name, page.js("return performance.getEntriesByType('resource').length") == 0)


def make_runs(work):
    logs = []
    prompt = json.loads(open(DEMO + "/heldout.jsonl").readline())["prompt"]
    for rate in ("5e-3", "1e-3"):
        log = os.path.join(work, "rate-%s.jsonl" % rate)
        tool("train", "--model", DEMO + "/base/model.gguf", "--data", DEMO + "/train.jsonl", "--eval", DEMO + "/heldout.jsonl", "--out",
             os.path.join(work, rate), "--json-log", log, "--report", os.path.join(FOLDER, "run-%s.html" % rate), "--sample-prompt", prompt, "--seed", "1",
             "--set", "learning_rate=" + rate, "--set", "target_modules=all-linear", "--set", "batch_size=4", "--set", "max_steps=24", "--set",
             "warmup_steps=4", "--set", "eval_steps=6", "--quiet")
        logs.append(log)
    return logs


def main(work, browser):
    logs = make_runs(work)
    page = Page(browser, os.path.join(FOLDER, "run-5e-3.html"))
    page.media()
    test_curves(page, read_log(logs[0]), "a run")
    test_keys(page, read_log(logs[0]), "a run")
    test_structure(page, "a run")
    test_layout(page, "run")
    held = page.data("loss")["runs"][0]["held"]
    check("a run: held-out values", held[0] == [6, 12, 18, 24] and all(
        math.isclose(v, read_log(logs[0])[s]["eval_loss"], rel_tol=1e-6) for s, v in zip(*held)), held)

    two = os.path.join(FOLDER, "two.html")
    tool("report", *logs, "--out", two)
    page.open(two)
    tip = page.hover("loss", 12)
    rows = [read_log(log) for log in logs]
    step = int(tip[0].split()[1]) if tip else 0
    check("two runs: hover shows both", tip and [t[0] for t in tip[1:] if "held" not in t[0]] == ["rate-5e-3", "rate-1e-3"] and all(
        math.isclose(float(t[1]), r[step]["loss"], rel_tol=1e-6) for t, r in zip([t for t in tip[1:] if "held" not in t[0]], rows)), tip)
    page.shot("two-hover")
    test_layout(page, "two")
    test_structure(page, "two runs")

    log, long = os.path.join(work, "long.jsonl"), os.path.join(FOLDER, "long.html")
    rows = write_log(log, 20000, evaluate=1000)
    tool("report", log, "--out", long)
    page.open(long)
    test_curves(page, rows, "20,000 steps")
    page.media()
    page.shot("long-light")

    log, evil = os.path.join(work, "evil.jsonl"), os.path.join(FOLDER, "evil.html")
    write_log(log, 30, job=EVIL)
    tool("report", log, "--out", evil)
    page.open(evil)
    check("a hostile name stays a name", page.js("return document.querySelector('h1').textContent").startswith("</title></script><script>"[:20]) and
          "gone" not in browser.title.split("\u2013")[-1] and page.js("return document.images.length") == 0, browser.title)
    test_layout(page, "evil")

    many = [os.path.join(work, "many-%02d.jsonl" % i) for i in range(12)]
    for i, log in enumerate(many):
        write_log(log, 200, shift=0.3 * i, evaluate=50)
    tool("report", *many, "--out", os.path.join(FOLDER, "many.html"))
    page.open(os.path.join(FOLDER, "many.html"))
    test_layout(page, "many")
    messages = page.errors()
    check("no error and no warning of the browser", not messages, messages[:3])

    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.open(two)
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    titles = page.js("return [...document.querySelectorAll('#loss .hits title')].map(t => t.textContent)")
    value = float(titles[24].split("\n")[0].split(": ")[-1])
    step = int(titles[24].split("step ")[1].split(":")[0])
    check("without its script the page has values to hover", len(titles) == 48 and math.isclose(value, read_log(logs[0])[step]["loss"], rel_tol=1e-6),
          titles[:2])


with tempfile.TemporaryDirectory() as work:
    browser = start()
    try:
        main(work, browser)
    finally:
        browser.quit()
print("%d passed, %d failed" % (counts[True], counts[False]))
sys.exit(counts[False] > 0)
