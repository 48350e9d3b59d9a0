"""The system's Chromium: where it is, and how it is started, for browser tests and for the screenshots of the docs."""

from __future__ import annotations

import shutil

#: Debian's package of the first one renders for no window, which takes a third less CPU time.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: In place of Playwright's list, which has ThirdPartyStoragePartitioning too: without that one, the headless shell
#: blocks no third-party cookies.
DISABLED_FEATURES = (
    "AimEnabled",
    "AvoidUnnecessaryBeforeUnloadCheckSync",
    "DestroyProfileOnBrowserClose",
    "HttpsUpgrades",
    "HttpsFirstBalancedModeAutoEnable",
    "MediaRouter",
    "NetworkTimeServiceQuerying",
    "OptimizationHints",
    "PaintHolding",
    "PreconnectToSearch",
)
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    # As more and more browsers do.
    "--test-third-party-cookie-phaseout",
    f"--disable-features={','.join(DISABLED_FEATURES)}",
    # One process renders all pages of a browser context: to start one for each takes half a second of CPU time.
    "--renderer-process-limit=1",
    "--disable-site-isolation-trials",
    # No page lives long enough to gain from the optimizing compilers, which take a quarter of the CPU time.
    "--js-flags=--no-turbofan --no-maglev",
]


def find_chromium() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)
