//! Everything an operator edits: the node's settings and the network's description, from TOML
//! text to checked values and back.
//!
//! One table in `table.rs` holds every key with its meaning, bounds and default; reading,
//! overriding, rendering and suggestions all follow from it. Texts come in and go out: the daemon
//! reads the files and the environment.
#![forbid(unsafe_code)]

mod error;
mod load;
pub mod network_toml;
pub mod profile;
mod render;
pub mod scenario;
mod settings;
mod suggest;
mod table;
mod values;

pub use error::{ConfigError, ConfigErrors};
pub use load::load;
pub use network_toml::{parse_network, render_network};
pub use render::{render_default, render_with};
pub use suggest::nearest;
pub use table::Config;
pub use values::{DataSource, LogFormat, LogLevel, Part};
