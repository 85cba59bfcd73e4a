#!/bin/sh
# run.sh - the page of `peft report` in a browser (headless Chromium, driven by Selenium): check.py makes pages, looks at them in light,
# dark, narrow and print, without a script, by pointer and by keys, and leaves screenshots in $BUILD/report. What the page's text has is
# tests/cli/report.sh. Installs Debian's chromium, chromium-driver and python3-selenium where they are missing. PEFT is the tool
# ($BUILD/peft by default). The last line is "N passed, N failed".
set -u
cd "$(dirname "$0")/../.." || exit 1
BUILD=${BUILD:-build}
PEFT=${PEFT:-$BUILD/peft}
if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null || ! /usr/bin/python3 -c 'import selenium' 2>/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver \
        python3-selenium fonts-dejavu-core; } >/dev/null || { echo "FAIL   browser: cannot be installed"; echo "0 passed, 1 failed"; exit 1; }
fi
[ -x "$PEFT" ] || { echo "FAIL   tool: $PEFT does not exist"; echo "0 passed, 1 failed"; exit 1; }
mkdir -p "$BUILD/report" || exit 1
# Debian's Python has Debian's Selenium, whatever other Python comes first.
exec /usr/bin/python3 tests/report/check.py "$PEFT" "$BUILD/report"
