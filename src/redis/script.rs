//! The registry of scripts, composed at build time from `lua/`.

use std::sync::OnceLock;

use fred::types::scripts::Script as Loaded;

/// One Lua script: one operation on the keys that its header names.
#[derive(Debug)]
pub struct Script {
    name: &'static str,
    keys: &'static [&'static str],
    body: &'static str,
    loaded: OnceLock<Loaded>,
}

impl Script {
    const fn new(name: &'static str, keys: &'static [&'static str], body: &'static str) -> Self {
        Self { name, keys, body, loaded: OnceLock::new() }
    }

    /// `room/verb`, as metrics label it.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The words of the header's `KEYS:` line.
    pub fn keys(&self) -> &'static [&'static str] {
        self.keys
    }

    /// The text that Redis gets.
    pub fn body(&self) -> &'static str {
        self.body
    }

    /// With its SHA-1, by which Redis knows it.
    pub(super) fn loaded(&self) -> &Loaded {
        self.loaded.get_or_init(|| Loaded::from_lua(self.body))
    }
}

/// Every script, by room and verb.
pub mod scripts {
    use super::Script;

    include!(concat!(env!("OUT_DIR"), "/scripts.rs"));
}
