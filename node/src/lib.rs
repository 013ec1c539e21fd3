//! What a node does: the protocol and the learning composed, still pure.
//!
//! [`node::Node::step`] takes a time and an input and returns outputs; [`worker::Worker`] owns the
//! weights and runs the jobs that the outputs ask for. The daemon puts sockets, files, a clock and
//! a thread around the two; [`sim`] puts virtual time and a virtual network around many of them.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod event;
pub mod jobs;
pub mod node;
mod references;
pub mod replica;
pub mod settings;
pub mod sim;

pub mod spec;
pub mod worker;
