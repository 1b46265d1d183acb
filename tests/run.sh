#!/usr/bin/env bash
# Runs every test, after seeing to it that the database servers which the tests start are installed. Arguments go to `cargo test`.
set -euo pipefail
cd "$(dirname "$0")/.."
tests/setup.sh
exec cargo test --workspace --features tcc-cluster/failpoints "$@"
