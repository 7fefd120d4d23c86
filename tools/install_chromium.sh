#!/bin/bash
# Make sure that there is a Chromium for the tests of the built site.  Where there can be
# none it says why and succeeds: those tests then skip, and say so too.
set -euo pipefail

for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null; then
    echo "browser: $(command -v "$name")"
    exit 0
  fi
done

without() {
  echo "No browser, so the site's pages are not opened in one: $1."
  exit 0
}

command -v apt-get >/dev/null || without "install Chromium by hand, there is no apt-get here"
root=()
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || without "installing Chromium needs root"
  root=(sudo -n)
fi
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null; }

apt update || without "apt-get update failed"
apt install -y --no-install-recommends chromium >/dev/null || without "apt-get found no package that installs"
echo "browser: $(command -v chromium || echo 'none, though apt-get installed chromium')"
