//! Real daemons on this machine: what an operator does, what goes wrong, and who is hostile.

#![allow(clippy::expect_used, clippy::unwrap_used, missing_docs)]

mod agree;
mod control;
mod demo;
mod errors;
mod harness;
mod hoard;
mod hostile;
mod join;
mod listen;
mod logs;
mod malformed;
mod restart;
mod stream;
mod web;
