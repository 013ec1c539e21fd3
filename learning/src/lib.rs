//! How a node learns: parameters, data, gradients, compression, mixing. Pure numerics.
//!
//! Knows no peer, socket, file or clock. Parameters are one flat `f32` vector with a named
//! [`params::Layout`]; sums that decide something are accumulated in `f64` in a fixed order, so
//! that equal inputs give equal bits on one machine and binary. Values that are no numbers are an
//! error where they enter and cannot occur below.
#![forbid(unsafe_code)]

pub mod compress;
pub mod data;
pub mod eval;
pub mod mix;
pub mod model;
pub mod optim;
pub mod params;
pub mod trainer;
