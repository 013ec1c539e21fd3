//! Every test that needs several crates, in one binary: filter by module path.

#![allow(clippy::expect_used, clippy::unwrap_used)]

mod monitor;
mod tree;
mod units;
