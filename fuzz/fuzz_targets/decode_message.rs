//! Bytes from a stranger never panic on their way through parsing, decoding and verification, and no change of a signed
//! message verifies: what does verify says exactly what was signed, to whom it was signed for.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use trustkeep::NodeId;
use trustkeep::wire::decode::decode;
use trustkeep::wire::message::{Kind, Message};
use trustkeep::wire::verify::verify;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    Tampered { edits: Vec<(u16, u8)>, insert: Option<(u16, &'a [u8])>, receiver: u32 },
}

/// A request from node 7, signed for node 9. No other message was ever signed with its key.
const SIGNED: &[u8] = include_bytes!("../seeds/request.json");
const RECEIVER: u32 = 9;

fuzz_target!(|input: Input<'_>| {
    match input {
        Input::Raw(bytes) => check(bytes, RECEIVER),
        Input::Tampered { edits, insert, receiver } => {
            let mut bytes = SIGNED.to_vec();
            for (at, value) in edits {
                let at = usize::from(at) % bytes.len();
                bytes[at] = value;
            }
            if let Some((at, more)) = insert {
                let at = usize::from(at) % bytes.len();
                bytes.splice(at..at, more.iter().copied());
            }
            check(&bytes, receiver);
            check(&bytes, RECEIVER);
        }
    }
});

fn check(bytes: &[u8], receiver: u32) {
    let Ok(message) = Message::parse(bytes) else { return };
    assert_eq!(Message::parse(&message.to_json()).as_ref(), Ok(&message), "what we write is what we read");
    let (Some(receiver), Ok(decoded)) = (NodeId::new(receiver), decode(message)) else { return };
    let Ok(verified) = verify(decoded.clone(), receiver) else { return };
    // Spaces, the order of fields and unknown ones may differ; what is acted upon may not.
    let signed = decode(Message::parse(SIGNED).unwrap()).unwrap();
    assert_eq!(receiver.get(), RECEIVER, "verified for another receiver");
    // A verified message has its texts filtered; what was signed is every byte of them.
    assert_eq!(decoded, signed, "a forgery");
    assert_eq!(verified, verify(signed, receiver).unwrap(), "a forgery");
    assert_eq!((verified.sender().get(), verified.kind()), (7, Kind::Request));
}
