#!/bin/bash
# Make sure that there is an epubcheck, and a Java for it, for the test of the EPUB.  Where
# there can be none it says why and succeeds: that test then skips, and says so too.
set -euo pipefail

if command -v epubcheck >/dev/null && command -v java >/dev/null; then
  echo "epubcheck: $(command -v epubcheck)"
  exit 0
fi

without() {
  echo "No epubcheck, so the EPUB is looked at by our own tests only: $1."
  exit 0
}

command -v apt-get >/dev/null || without "install it by hand, there is no apt-get here"
root=()
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null || without "installing it needs root"
  root=(sudo -n)
fi
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null; }
packages=(epubcheck)
command -v java >/dev/null || packages+=(default-jre-headless)

apt update || without "apt-get update failed"
apt install -y --no-install-recommends "${packages[@]}" >/dev/null || without "apt-get found no package that installs"
echo "epubcheck: $(command -v epubcheck || echo 'none, though apt-get installed it')"
