#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Shell lint: shellcheck over every shell script of the source tree, known by its name or its first line.

set -u -o pipefail

cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." || exit 1

scripts=()
while IFS= read -r -d '' file; do
	case $file in
	*.sh | */test_lib) scripts+=("$file") ;;
	*) IFS= read -r first <"$file" && [[ $first =~ ^#!.*[/\ ](ba)?sh([[:space:]]|$) ]] && scripts+=("$file") ;;
	esac
done < <(find .ci tools tests -type f ! -path '*/__pycache__/*' -print0 2>/dev/null | sort -z)

echo "shellcheck: ${#scripts[@]} scripts"
# Most of them source one library, which shellcheck reads again for each: use all processors.
printf '%s\0' "${scripts[@]}" |
	xargs -0 -n 16 -P "$(nproc)" shellcheck --external-sources --source-path=SCRIPTDIR --source-path=.
