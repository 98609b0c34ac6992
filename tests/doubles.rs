//! What the tests of a node rely on where they take a double for the real thing.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod common;

use std::io::ErrorKind;

use common::Disk;
use trustkeep::Storage;

#[test]
fn who_has_opened_a_file_writes_to_it_wherever_its_name_leads() {
    let disk = Disk::default();
    let files = |disk: &Disk| {
        let files = disk.bytes().into_iter();
        files.map(|(name, bytes)| format!("{name}: {}", String::from_utf8(bytes).unwrap())).collect::<Vec<_>>()
    };
    let mut first = disk.create("a").unwrap();
    first.write_at(0, b"one").unwrap();
    disk.rename("a", "b").unwrap();
    first.write_at(3, b" two").unwrap();
    assert_eq!(files(&disk), ["b: one two"]);
    // A new name never takes another's place. Once it is free it leads to another file, and the first one is nowhere.
    let mut second = disk.create("a").unwrap();
    second.write_at(0, b"three").unwrap();
    assert_eq!(disk.rename("a", "b").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(files(&disk), ["a: three", "b: one two"]);
    disk.remove("b").unwrap();
    disk.rename("a", "b").unwrap();
    let crashed = disk.crashed();
    first.write_at(0, b"lost").unwrap();
    second.write_at(0, b"three and four").unwrap();
    assert_eq!(files(&disk), ["b: three and four"]);
    assert_eq!(files(&crashed), ["b: three"], "what a crash left stays as it is");
    assert_eq!(disk.create("b").err().unwrap().kind(), ErrorKind::AlreadyExists);
    disk.remove("b").unwrap();
    second.write_at(0, b"five").unwrap();
    assert!(files(&disk).is_empty());
    assert_eq!(disk.remove("b").unwrap_err().kind(), ErrorKind::NotFound);
}
