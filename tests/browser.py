"""A headless Chromium, and what is checked of every page at every width, light and dark."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

WIDTHS = (390, 768, 1280)
PATIENCE = 120_000
"""Milliseconds for what a page is to do: a busy machine may take long."""
FAULTS = """() => {
    for (const motion of document.getAnimations()) try { motion.finish() } catch { /* it never ends */ }
    const seen = e => e.checkVisibility() && e.getClientRects().length > 0;
    const all = what => [...document.querySelectorAll(what)].filter(seen);
    const found = [], page = document.documentElement;
    if (page.scrollWidth > innerWidth) found.push(`the page is ${page.scrollWidth} px wide`);
    if (!page.lang) found.push('no language');
    if (!document.title) found.push('no title');
    for (const image of all('img')) if (!image.alt.trim()) found.push(`no alt text: ${image.src.slice(-80)}`);
    const levels = all('h1, h2, h3, h4, h5, h6').map(h => Number(h.tagName[1]));
    if (levels.filter(level => level == 1).length != 1 || levels[0] != 1) found.push('not one h1, first');
    levels.forEach((level, i) => {
        if (i && level > levels[i - 1] + 1) found.push(`h${level} after h${levels[i - 1]}`);
    });
    for (const made of all('button, a[href]'))
        if (!(made.innerText || made.ariaLabel || made.title || made.querySelector('img[alt]')))
            found.push(`nothing says what this does: ${made.outerHTML.slice(0, 80)}`);
    return found;
}"""
PALE = """() => {
    const channels = text => text.match(/[\\d.]+/g).map(Number);
    const light = rgb => rgb.slice(0, 3).map(c => c / 255)
        .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = e => {
        for (; e; e = e.parentElement) {
            const color = channels(getComputedStyle(e).backgroundColor);
            if (color.length < 4 || color[3] > 0.99) return color;
        }
        return matchMedia('(prefers-color-scheme: dark)').matches ? [18, 18, 18] : [255, 255, 255];
    };
    const found = [];
    for (const e of document.querySelectorAll('body *:not(script, style)')) {
        const own = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
        if (!own || e.closest('svg, .plot') || !e.checkVisibility()) continue;
        const style = getComputedStyle(e);
        const [a, b] = [light(channels(style.color)), light(behind(e))];
        const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (ratio < 4.5) found.push(`${ratio.toFixed(1)}: ${e.tagName} ${e.textContent.trim().slice(0, 40)}`);
    }
    return found;
}"""
"""Texts with less than 4.5 times the contrast (WCAG 2.2, 1.4.3)."""


@contextmanager
def chromium() -> Iterator:
    """Start a headless Chromium; without one, the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next((path for name in names if (path := shutil.which(name))), None)
    if executable is None:
        pytest.skip("no Chromium is installed")
    from playwright.sync_api import sync_playwright

    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-unsafe-swiftshader",
    ]
    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=executable, args=arguments, timeout=PATIENCE)
        yield started
        started.close()


def new_tab(browser):
    """Open a tab; its `said` gathers console errors, exceptions, and what is asked of the network."""
    tab = browser.new_page(viewport={"width": 1200, "height": 900})
    tab.set_default_timeout(PATIENCE)
    tab.said = []
    tab.on("console", lambda m: tab.said.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: tab.said.append(str(error)))
    tab.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else tab.said.append(r.url),
    )
    return tab


def faults(tab, colors=False):
    """Return what is wrong with the page in a tab, at any width, light or dark; its size is put back."""
    from playwright.sync_api import TimeoutError

    size, found = tab.viewport_size, []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            tab.set_viewport_size({"width": width, "height": 900})
            with suppress(TimeoutError):  # Plotly follows a little later; what still does not fit is a fault
                tab.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
            found += [f"{width} px, {scheme}: {fault}" for fault in tab.evaluate(FAULTS)]
        if colors:
            found += [f"{scheme}: {text}" for text in tab.evaluate(PALE)]
    tab.emulate_media(color_scheme="light")
    tab.set_viewport_size(size)
    return found + tab.said
