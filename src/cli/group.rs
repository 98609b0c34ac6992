//! Groups of users, by name or number.
#![forbid(unsafe_code)]

use nix::unistd::Group;

/// The number of a group.
pub(super) fn parse(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    match Group::from_name(text) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err("no such group".to_owned()),
        Err(error) => Err(format!("the groups cannot be read: {error}")),
    }
}
