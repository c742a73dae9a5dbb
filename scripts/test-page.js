// Opens pages of `tap2pcap report` in Chromium, uses them as people do, and has axe-core judge them. The first argument
// is the directory of the pages, which gets the screenshots.
const fs = require("fs");
const path = require("path");
const { pathToFileURL } = require("url");
const { chromium } = require("playwright-core");

const place = path.resolve(process.argv[2]);
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const faults = [];
const check = (right, what) => { if (!right) faults.push(what); };
const size = (width, height) => ({ viewport: { width, height } });

/** Opens a page, and counts what it must not do: errors, requests, violations of its policy, dialogs. */
async function open(browser, name, options = {}) {
  const context = await browser.newContext({ ...size(1280, 900), reducedMotion: "reduce", ...options });
  const url = pathToFileURL(path.join(place, `${name}.html`)).href;
  const page = await context.newPage();
  const fault = (text) => faults.push(`${name}: ${text}`);
  page.on("console", (message) => { if (message.type() === "error" || /security policy/i.test(message.text())) fault(`console: ${message.text()}`); });
  page.on("pageerror", (error) => fault(`error: ${error.message}`));
  page.on("dialog", (dialog) => { fault("hostile text ran"); dialog.dismiss(); });
  await context.route("**", (route) => {
    if (route.request().url().split("#")[0] === url) return route.continue();
    fault(`asks for ${route.request().url()}`);
    return route.abort();
  });
  await context.addInitScript(() => addEventListener("securitypolicyviolation", (event) => console.error(`content security policy: ${event.violatedDirective}`)));
  const begin = Date.now();
  await page.goto(url);
  if (options.javaScriptEnabled !== false) {
    await page.waitForFunction(() => document.documentElement.classList.contains("scripted"), null, { timeout: 10000 }).catch(() => fault("its script does not run"));
  }
  page.loaded = Date.now() - begin;
  return page;
}

const first = (page, column) => page.locator(`#request-table tbody tr:first-child td:nth-child(${column})`).innerText();
const text = (page, selector) => page.locator(selector).first().innerText();

async function sorting(page) {
  for (const [index, name] of ["Time", "Duration", "Status", "Method", "Host", "Path"].entries()) {
    const head = page.locator("#request-table th").nth(index);
    await head.locator("button").click();
    check((await head.getAttribute("aria-sort")) === "ascending", `${name} does not sort`);
    const least = await first(page, index + 1);
    await head.locator("button").click();
    check((await head.getAttribute("aria-sort")) === "descending", `${name} does not sort backwards`);
    check(name === "Host" || least !== (await first(page, index + 1)), `sorting by ${name} changes nothing`);
  }
  const routes = page.locator("#latency tbody tr td:first-child");
  const before = await routes.allInnerTexts();
  const head = page.locator("#latency th button").first();
  await head.focus();
  await page.keyboard.press("Enter");
  await page.keyboard.press("Enter");
  check((await routes.allInnerTexts()).join() !== before.join(), "routes do not sort by the keyboard");
}

async function filtering(page) {
  const total = await text(page, "#request-table .where");
  const narrows = async (what) => {
    const where = await text(page, "#request-table .where");
    check(where !== total && /without filters/.test(where), `${what} does not filter: ${where}`);
    check((await text(page, "#live")) === where, `${what}: the live region is silent`);
    await page.getByRole("button", { name: "Clear", exact: true }).click();
    check((await text(page, "#request-table .where")) === total, `${what} is not cleared`);
  };
  await page.fill("#filter-text", "login");
  await narrows("text");
  for (const [id, value] of [["status", "5"], ["status", "failed"], ["origin", "Envoy"], ["route", "1"]]) {
    await page.selectOption(`#filter-${id}`, value);
    await narrows(`${id} ${value}`);
  }
  await page.check("#filter-window");
  await narrows("the window");
  await page.fill("#filter-text", "nothing has this");
  check(/^0 of/.test(await text(page, "#request-table .where")), "no request is not told");
  await page.getByRole("button", { name: "Clear", exact: true }).click();
}

async function paging(page) {
  const before = await text(page, "#request-table .where");
  await page.locator("#request-table .pager").getByRole("button", { name: "Next" }).click();
  check(/^51 to 100 of/.test(await text(page, "#request-table .where")), "there is no next page");
  await page.locator("#request-table .pager").getByRole("button", { name: "First" }).click();
  check((await text(page, "#request-table .where")) === before, "there is no way back");
  await page.locator("#request-table .more").first().click();
  check(/%DURATION%/.test(await text(page, "#request-table td.inside")), "a row has no facts");
  await page.locator("#request-table .more").first().click();
}

async function zooming(page) {
  const changes = async (what, act) => {
    const before = await text(page, "#window");
    await act();
    check((await text(page, "#window")) !== before, `${what} changes nothing`);
  };
  for (const id of ["zoom-in", "zoom-out", "later", "earlier", "zoom-all"]) await changes(id, () => page.click(`#${id}`));
  await page.focus("#overview");
  for (const key of ["+", "ArrowRight", "ArrowLeft", "-"]) {
    if (key === "-") await page.keyboard.press("+");
    await changes(`key ${key}`, () => page.keyboard.press(key));
  }
  await page.locator("#overview-chart").scrollIntoViewIfNeeded();
  const box = await page.locator("#overview-chart").boundingBox();
  await changes("dragging", async () => {
    await page.mouse.move(box.x + box.width * 0.2, box.y + 30);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.35, box.y + 30, { steps: 4 });
    await page.mouse.up();
  });
  await changes("ctrl and wheel", async () => {
    await page.keyboard.down("Control");
    await page.mouse.wheel(0, -100);
    await page.keyboard.up("Control");
    await page.waitForTimeout(100);
  });
}

/** Serious faults of accessibility. */
async function judge(page, name) {
  await page.evaluate((source) => { (0, eval)(source); }, axe).catch(() => page.evaluate(axe));
  const result = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  for (const { id, impact, nodes } of result.violations) {
    const said = `axe, ${name}: ${impact}: ${id}: ${nodes.slice(0, 2).map((node) => `${node.target} ${node.any.concat(node.all).map((one) => one.message)[0] || ""}`).join("; ")}`;
    if (["serious", "critical"].includes(impact)) faults.push(said);
    else console.log(said);
  }
}

const widths = (page) => page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);

(async () => {
  const browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  const shot = (page, name, fullPage = false) => page.screenshot({ path: path.join(place, `${name}.png`), fullPage });

  const page = await open(browser, "sample");
  await shot(page, "light");
  await shot(page, "light-whole", true);
  await zooming(page);
  await sorting(page);
  await filtering(page);
  await paging(page);
  await page.goto(`${page.url().split("#")[0]}#d-1`);
  check(await page.locator("#d-1").evaluate((entry) => entry.open), "a link to a request does not open it");
  await shot(page, "detail");
  await page.emulateMedia({ media: "print" });
  await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
  await page.setViewportSize({ width: 760, height: 1000 });
  const [paper, room] = await widths(page);
  check(paper <= room, `printed, the page is ${paper} wide and has ${room}`);
  await shot(page, "print-whole", true);
  await page.pdf({ path: path.join(place, "print.pdf"), format: "A4" });
  check(await page.locator("details.exchange").evaluateAll((all) => all.length > 0 && all.every((one) => one.open)), "printing does not open the requests");

  for (const [name, options] of Object.entries({
    light: { colorScheme: "light" },
    dark: { colorScheme: "dark" },
    phone: { colorScheme: "light", ...size(390, 844) },
    "phone-dark": { colorScheme: "dark", ...size(390, 844) },
  })) {
    // axe-core is put into the page by its debugger, which no policy stops.
    const judged = await open(browser, "sample", options);
    await judged.locator("details.exchange summary").first().click();
    await judged.locator("#waterfall button.what").first().click();
    await judge(judged, name);
    await judged.evaluate(() => scrollTo(0, 0));
    await shot(judged, name);
    if (name !== "light") await shot(judged, `${name}-whole`, true);
  }
  for (const name of ["sample", "empty"]) {
    const narrow = await open(browser, name, size(360, 740));
    await narrow.evaluate(() => document.querySelectorAll("details").forEach((entry) => { entry.open = true; }));
    const [scroll, client] = await widths(narrow);
    check(scroll <= client, `${name}: at 360 pixels, the page is ${scroll} wide`);
  }

  const plain = await open(browser, "sample", { javaScriptEnabled: false });
  const rows = await plain.locator("#requests noscript tbody tr").count();
  check(rows === 300, `without scripts, there are ${rows} rows`);
  check(await plain.locator("#requests noscript tbody tr").first().isVisible(), "without scripts, no row is seen");
  check(!(await plain.locator(".controls").first().isVisible()), "without scripts, there are controls");
  await shot(plain, "plain-whole", true);

  await open(browser, "empty");
  for (const name of ["traces", "hostile"]) {
    const real = await open(browser, name);
    check((await real.locator("#request-table tbody tr").count()) > 0, `${name}: no requests`);
    await real.evaluate(() => document.querySelectorAll("details").forEach((entry) => { entry.open = true; }));
    await judge(real, name);
    await shot(real, `${name}-whole`, true);
  }
  const names = await (await open(browser, "hostile")).locator("img, iframe, [onerror], [onload]").count();
  check(names === 0, `hostile text became ${names} elements`);
  const bytes = fs.statSync(path.join(place, "large.html")).size;
  check(bytes < 10 * 1024 * 1024, `10,000 requests make ${bytes} bytes`);
  const large = await open(browser, "large");
  console.log(`10,000 requests: ${bytes} bytes, open after ${large.loaded} ms`);
  await browser.close();
})().catch((error) => faults.push(String(error.message))).then(() => {
  if (faults.length) {
    console.error([...new Set(faults)].join("\n"));
    process.exit(1);
  }
  console.log("the page works in Chromium");
  process.exit(0);
});
