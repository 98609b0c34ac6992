//! Those that this crate is measured against.
//!
//! What must hold: every peer is used as its own documents advise where speed matters, and none is given more work than
//! ours; a doubt goes to its favour.

pub mod maps;
pub mod model_a;
pub mod model_b;
pub mod old_json;
pub mod stores;
