#!/bin/bash
# Open an issue about a weekly run that failed; comment on the one that is open already.
#
#   GH_TOKEN=... tools/report_failure.sh ADDRESS-OF-THE-RUN
#
# With DRY_RUN=1 it only says what it would open.
set -euo pipefail

run=${1:?the address of the run is missing}
title="The weekly run failed"
body="A job of the weekly run has failed: $run

If it is \`newest\`, the book does not pass with the newest releases that \`requirements.in\` allows. To see
it yourself: \`make newest && make ci\`. The pinned versions still work; either mend the book, or say in
\`requirements.in\` which release to stay below, and why.

If it is \`binder\`, an evening cannot be solved any more where the Binder button leads: \`make binder-test\`."

if [ "${DRY_RUN:-}" = 1 ]; then
  printf '%s\n\n%s\n' "$title" "$body"
  exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
repository=${GITHUB_REPOSITORY:?it names the repository, as owner/name}
open=$(gh issue list --repo "$repository" --state open --search "in:title \"$title\"" --json number --jq '.[0].number // empty')
if [ -n "$open" ]; then
  gh issue comment "$open" --repo "$repository" --body "$body"
else
  gh issue create --repo "$repository" --title "$title" --body "$body"
fi
