//! `rekey`: a new key for a node that does not run, named by the old one.
#![forbid(unsafe_code)]

use std::path::Path;

use serde::Serialize;

use super::home::Home;
use super::{Answer, Failure, now, owner, print};
use crate::node::Identity as _;
use crate::persist::file::{Directory, LoadMode};

#[derive(Serialize)]
struct Rekeyed {
    node_id: u32,
    public_key: String,
    fingerprint: String,
    /// Of the key that is no more.
    old_fingerprint: String,
    home: String,
}

/// Changes the key and says which one to give to others.
pub(super) fn rekey(home: &Path, json: bool) -> Result<Answer, Failure> {
    let home = Home::new(home);
    owner::work_as_owner_of(home.path())?;
    // First, so that nothing is made where no node lives.
    home.own_identity()?;
    // A node holds its store for as long as it runs, and so does whoever else changes its key.
    let lock = Directory::own(&home.store(), true, LoadMode::Read)?;
    let old = home.own_identity()?.public_key();
    let identity = home.rekey(now().wall)?;
    drop(lock);
    let key = identity.public_key();
    let rekeyed = Rekeyed {
        node_id: identity.node_id().get(),
        public_key: key.to_base64(),
        fingerprint: key.fingerprint().to_string(),
        old_fingerprint: old.fingerprint().to_string(),
        home: home.path().display().to_string(),
    };
    if json {
        print::json(&rekeyed)?;
        return Ok(Answer::Yes);
    }
    let Rekeyed { node_id, public_key, fingerprint, old_fingerprint, home } = rekeyed;
    let place = print::shell(Path::new(&home));
    print::to_stdout(|out| {
        writeln!(out, "node         {node_id}\nhome         {home}")?;
        writeln!(out, "public key   {public_key}\nfingerprint  {fingerprint}")?;
        writeln!(out, "replaces     {old_fingerprint}, which is destroyed here; see to copies made elsewhere")?;
        writeln!(
            out,
            "The node tells its trusted peers when it runs next; `trustkeep status --home {place}` counts them."
        )?;
        writeln!(out, "To tell one by hand: `trustkeep request --home {place} PEER --force`.")
    })?;
    Ok(Answer::Yes)
}
