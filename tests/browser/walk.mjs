// Walks through the pack in ComfyUI's page as a newcomer does, and prints what it saw as JSON.
// node walk.mjs URL PACK RENDERER(canvas|vue) SHOTS_FOLDER; needs playwright-core in NODE_PATH and a Chromium.
import { createRequire } from "node:module";
import path from "node:path";

const [url, pack, renderer, shots] = process.argv.slice(2);
const { chromium } = createRequire(path.join(process.env.NODE_PATH, "x.js"))("playwright-core");
const seen = { errors: [] };

await fetch(`${url}/settings`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ "Comfy.TutorialCompleted": true, "Comfy.VueNodes.Enabled": renderer === "vue" }),
});
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu"],
});
const page = await browser.newPage({ viewport: { width: 1800, height: 1100 } });
page.on("pageerror", (error) => /mggtalk/i.test(error.stack ?? "") && seen.errors.push(error.message));
page.setDefaultTimeout(180_000);
await page.goto(url, { waitUntil: "domcontentloaded" });
await page.waitForFunction(() => window.app?.extensionManager && window.app.graph?.nodes, null, { timeout: 120_000 });
await page.waitForTimeout(2000);

// the templates dialog lists the pack, and a click opens the workflow
await page.getByText("Templates", { exact: true }).first().click();
await page.getByText(pack).first().click();
const card = page.getByText("expression_editor_and_3d_export").first();
await card.waitFor({ timeout: 60_000 });
await page.screenshot({ path: path.join(shots, `${renderer}_templates.png`) });
await card.click();
await page.waitForFunction(() => window.app.graph.nodes.some((node) => node.type === "MGGTalkExpressionEditor"), null, {
    timeout: 60_000,
});
await page.waitForTimeout(1500);
seen.missing = await page.evaluate(() => window.app.graph.nodes.filter((node) => node.has_errors).map((n) => n.type));
seen.scripts = await page.evaluate(() => Boolean(document.querySelector(".mggtalk")?.shadowRoot.querySelector("canvas")));

// Run, and the head appears in the editor
await page.getByTestId("queue-button").click();
await page.waitForFunction(() => document.querySelector(".mggtalk")?.dataset.updates > 0, null, { timeout: 300_000 });
await page.evaluate(() => {
    const node = window.app.graph.nodes.find((each) => each.type === "MGGTalkExpressionEditor");
    window.app.canvas.ds.scale = 0.9;
    window.app.canvas.centerOnNode(node);
    window.app.canvas.setDirty(true, true);
});
await page.waitForFunction(async () => (await (await fetch("/queue")).json()).queue_running.length === 0, null, {
    timeout: 300_000,
});
await page.waitForTimeout(1500);

// Pixels of the view, and how far two states of it differ (mean over the channels, 0..255).
const pixels = () =>
    page.evaluate(() => {
        const canvas = document.querySelector(".mggtalk").shadowRoot.querySelector("canvas");
        return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
    });
const difference = (a, b) => a.reduce((sum, value, index) => sum + Math.abs(value - b[index]), 0) / a.length;
const text = () =>
    page.evaluate(
        () =>
            window.app.graph.nodes
                .find((node) => node.type === "MGGTalkExpressionEditor")
                .widgets.find((widget) => widget.name === "expression").value,
    );

const before = await pixels();
await page.screenshot({ path: path.join(shots, `${renderer}_before.png`) });
await page.locator(".mggtalk summary", { hasText: "Jaw" }).first().click();
const slider = page.locator('.mggtalk input[data-shape="jawOpen"]').first();
await slider.evaluate((element) => {
    element.value = 0.8;
    element.dispatchEvent(new Event("input", { bubbles: true }));
});
await page.waitForTimeout(1200);
const opened = await pixels();
seen.slider = difference(before, opened);
seen.text = await text();

const box = await page.locator(".mggtalk canvas").first().boundingBox();
await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
await page.mouse.down();
await page.mouse.move(box.x + box.width / 4, box.y + box.height / 2, { steps: 8 });
await page.mouse.up();
await page.waitForTimeout(1200);
seen.orbit = difference(opened, await pixels());
await page.screenshot({ path: path.join(shots, `${renderer}_after.png`) });

// how many pictures arrive while a slider is dragged without pause
seen.updatesPerSecond = await page.evaluate(async () => {
    const view = document.querySelector(".mggtalk");
    const yaw = view.shadowRoot.querySelector('input[data-shape="headYaw"]');
    const first = Number(view.dataset.updates);
    const began = performance.now();
    for (let step = 0; performance.now() - began < 4000; step++) {
        yaw.value = 15 * Math.sin(step / 10);
        yaw.dispatchEvent(new Event("input", { bubbles: true }));
        await new Promise((done) => setTimeout(done, 20));
    }
    return (Number(view.dataset.updates) - first) / 4;
});
seen.latency = await page.evaluate(async () => {
    const view = document.querySelector(".mggtalk");
    const yaw = view.shadowRoot.querySelector('input[data-shape="headYaw"]');
    const times = [];
    for (let step = 0; step < 10; step++) {
        await new Promise((done) => setTimeout(done, 400));
        const first = view.dataset.updates;
        const began = performance.now();
        yaw.value = step;
        yaw.dispatchEvent(new Event("input", { bubbles: true }));
        while (view.dataset.updates === first) await new Promise((done) => setTimeout(done, 2));
        times.push(performance.now() - began);
    }
    return times.sort((a, b) => a - b)[5];
});

// the result follows the widget: run again and the saved still is another one
const stillOf = () => fetch(`${url}/history?max_items=1`).then((answer) => answer.json());
const newest = async () => JSON.stringify(await stillOf()).match(/expression_still_\d+_\.png/)?.[0];
seen.firstStill = seen.secondStill = await newest();
await page.waitForTimeout(500);
await page.getByTestId("queue-button").click();
for (let waited = 0; waited < 240 && seen.secondStill === seen.firstStill; waited++) {
    await page.waitForTimeout(1000);
    seen.secondStill = await newest();
}
await page.waitForTimeout(1500);
await page.screenshot({ path: path.join(shots, `${renderer}_second_run.png`) });
await browser.close();
console.log(JSON.stringify(seen));
