"""The site's pages in a browser, as wide as a desktop and as a telephone: whole, and without a network."""

import json
import subprocess
import threading

from sites import SITE, Quiet, browser, served

# Of the reference's pages, which have one template, those that differ most.
REFERENCE = ("Module", "GRU", "OneCycleLR", "fit", "set_backend", "diagnostics.gradient_flow")
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for pattern in ("*.html", "studies/*.html", "gallery/**/*.html", "api/*.html")
    for path in SITE.glob(pattern)
) + [f"api/generated/minirnn.{name}.html" for name in REFERENCE]

# Opens each page in a frame and sends home what is wrong with it.
LOOK = """<!doctype html><meta charset="utf-8"><body><script>
const PAGES = %s, WIDTHS = [1280, 390]

async function formulas(page) {
  await page.MathJax?.startup?.promise
  for (const image of page.document.images) {
    image.loading = "eager"
    await image.decode().catch(() => {})
  }
}

function wrong(page) {
  const all = (selector) => [...page.document.querySelectorAll(selector)], found = []
  for (const part of [page.document.scrollingElement, ...all(".bd-article-container")])
    if (part.scrollWidth > part.clientWidth + 1)
      found.push(`${part.className || "page"}: ${part.scrollWidth} wide, room for ${part.clientWidth}`)
  for (const image of page.document.images)
    if (!image.naturalWidth) found.push(`no picture: ${image.src}`)
  for (const formula of all(".math"))
    if (!formula.querySelector("mjx-container") || formula.querySelector("[data-mml-node=merror]"))
      found.push(`no formula: ${formula.textContent}`)
  for (const text of all(".bd-article p, .bd-article li, .bd-article td")) {
    const said = text.cloneNode(true)
    said.querySelectorAll("code, .math").forEach((part) => part.remove())
    const mark = said.textContent.match(/.{0,20}(\\*\\*|\\$\\$|``|\\]\\().{0,20}/)
    if (mark) found.push(`not marked up: ${mark[0]}`)
  }
  for (const link of all("a[href^='#']"))
    if (link.hash.length > 1 && !page.document.getElementById(decodeURIComponent(link.hash.slice(1))))
      found.push(`leads nowhere: ${link.hash}`)
  for (const {name} of page.performance.getEntriesByType("resource"))
    if (!name.startsWith(location.origin)) found.push(`from outside: ${name}`)
  return found
}

async function look() {
  const found = {}
  for (const name of PAGES) {
    const frame = document.createElement("iframe")
    frame.width = WIDTHS[0]
    frame.height = 900
    const loaded = new Promise((done) => (frame.onload = done))
    frame.src = name
    document.body.append(frame)
    await loaded
    await formulas(frame.contentWindow)
    for (const width of WIDTHS) {
      frame.width = width
      await new Promise((done) => requestAnimationFrame(() => setTimeout(done)))
      const problems = wrong(frame.contentWindow)
      if (problems.length) found[`${name}, ${width}`] = problems
    }
    frame.remove()
  }
  return found
}

look().catch((error) => String(error)).then((found) =>
  fetch("found", {method: "POST", body: JSON.stringify(found)}))
</script>"""


class Home(Quiet):
    """The site, the page that looks at it, and what that sends home."""

    missing, found, told = [], None, threading.Event()

    def do_GET(self):
        """Send the page that looks, or a file."""
        if self.path != "/look":
            return super().do_GET()
        page = (LOOK % json.dumps(PAGES)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        return self.wfile.write(page)

    def do_POST(self):
        """Keep what is sent."""
        Home.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        self.told.set()

    def send_error(self, code, *args):
        """Remember what there is not."""
        if self.path != "/favicon.ico":
            self.missing.append(f"{code} {self.path}")
        super().send_error(code, *args)


def test_every_page_is_whole_at_two_widths_and_needs_no_network(tmp_path):
    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    says = ("--enable-logging=stderr", "--window-size=1400,1000")
    with served(Home) as address, (tmp_path / "said").open("w+") as said:
        command = browser(tmp_path / "profile", f"{address}/look", alone, *says)
        with subprocess.Popen(command, stdout=said, stderr=said) as process:
            arrived = Home.told.wait(600)
            process.terminate()
        said.seek(0)
        theme = '"[PST]: '  # tells what it does
        errors = [line for line in said if ":CONSOLE" in line and theme not in line]
    assert arrived
    assert Home.found == {}
    assert Home.missing == []
    assert errors == []
