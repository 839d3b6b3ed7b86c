#!/usr/bin/env bash
# The C smoke programs under valgrind: every byte that is read was written, every byte that was taken is given back.
# Tables that live as long as the process are "possibly lost" to valgrind: pointers into their middle hold them.
# Valgrind knows no AVX-512; the engine asks the (simulated) processor and takes what there is.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v valgrind >/dev/null || { echo "needs valgrind"; exit 1; }
export INLAID_RUNNER="valgrind --quiet --error-exitcode=99 --leak-check=full --show-leak-kinds=definite,indirect --errors-for-leak-kinds=definite,indirect --fair-sched=yes"
cargo test --locked --profile quick --test capi -- --test-threads=1 with_the_shared_library examples
